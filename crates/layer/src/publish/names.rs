//! Which file names Windows takes for something else: devices, streams, and names that it would change.

use std::ffi::OsStr;

/// Why Windows would not make a file of this name, or would make one of another name.
pub(super) fn refused_by_windows(name: &OsStr) -> Option<&'static str> {
    let name = name.to_string_lossy();
    if name
        .chars()
        .any(|c| c.is_control() || "<>:\"|?*".contains(c))
    {
        return Some("windows takes no name with control characters or one of < > : \" | ? *");
    }
    if name.ends_with(['.', ' ']) {
        return Some("windows cuts dots and spaces off the end of a name");
    }
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    is_device(&stem.to_uppercase()).then_some("windows has a device of that name")
}

fn is_device(stem: &str) -> bool {
    let numbered = |stem: &str| {
        let mut rest = stem.chars();
        matches!(
            (rest.next(), rest.next()),
            (Some('0'..='9' | '\u{b9}' | '\u{b2}' | '\u{b3}'), None)
        )
    };
    match stem {
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" => true,
        _ => {
            let number = stem
                .strip_prefix("COM")
                .or_else(|| stem.strip_prefix("LPT"));
            number.is_some_and(numbered)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_streams_and_changed_names_are_refused() {
        let refused = |name: &str| refused_by_windows(OsStr::new(name)).is_some();
        for name in [
            "nul",
            "NUL.vhd",
            "con",
            "Aux.tar.gz",
            "com1",
            "LPT9.vhdx",
            "com\u{b2}",
            "nul .x",
            "a:b",
            "what?",
            "layer.vhd.",
            "layer.vhd ",
            "a\tb",
        ] {
            assert!(refused(name), "{name}");
        }
        for name in [
            "layer.vhd",
            "com",
            "com10.vhd",
            "console.log",
            "nulls",
            ".vhd",
            "lpt",
            "ünï",
        ] {
            assert!(!refused(name), "{name}");
        }
    }
}
