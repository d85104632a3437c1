//! How sizes are written: bytes, or a number with a binary unit.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

const UNITS: [(char, u32); 5] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const HELP: &str = "write a number of bytes, or one with K, M, G or T, such as 512M or 20G";
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let shift = match unit {
            "" => 0,
            _ => {
                let mut letters = unit.chars();
                let first = letters.next().unwrap_or_default().to_ascii_uppercase();
                let rest = letters.as_str();
                match UNITS.iter().find(|(letter, _)| *letter == first) {
                    Some((_, shift)) if rest.is_empty() || rest == "iB" => *shift,
                    Some(_) if rest.eq_ignore_ascii_case("b") => {
                        return Err(format!(
                            "units are binary here: write {number}{first}, which is {number}{first}iB"
                        ));
                    }
                    _ => return Err(format!("{unit:?} is no unit: {HELP}")),
                }
            }
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || part.contains('.') || (!part.is_empty() && shift == 0) {
            return Err(HELP.to_owned());
        }
        let too_big = || format!("{text} is more than any disk holds");
        if part.len() > 9 {
            return Err(format!("{text} is more exact than it can be"));
        }
        let whole: u64 = whole.parse().map_err(|_| too_big())?;
        let mut bytes = u128::from(whole) << shift;
        if !part.is_empty() {
            let tenths: u64 = part.parse().map_err(|_| HELP.to_owned())?;
            let scale = 10_u128.pow(u32::try_from(part.len()).unwrap_or(9));
            bytes += (u128::from(tenths) << shift) / scale;
        }
        match u64::try_from(bytes) {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(too_big()),
        }
    }
}

/// A size of something that cannot be empty.
pub(crate) fn of_something(text: &str) -> Result<Size, String> {
    match text.parse()? {
        Size(0) => Err("it must be more than 0".to_owned()),
        size => Ok(size),
    }
}

/// Three digits and a unit, such as "1.25 GiB"; whole numbers without a point.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((letter, shift)) = UNITS
            .iter()
            .rev()
            .find(|(_, shift)| self.0 >> shift > 0)
            .copied()
        else {
            return write!(f, "{} B", self.0);
        };
        let whole = self.0 >> shift;
        let hundredths = (u128::from(self.0 - (whole << shift)) * 100) >> shift;
        match (whole, hundredths) {
            (_, 0) | (100.., _) => write!(f, "{whole} {letter}iB"),
            (10.., _) => write!(f, "{whole}.{} {letter}iB", hundredths / 10),
            _ => write!(f, "{whole}.{hundredths:02} {letter}iB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("1K", 1024),
            ("512m", 512 << 20),
            ("20G", 20 << 30),
            ("20GiB", 20 << 30),
            ("1.5G", 3 << 29),
            ("16T", 16 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "G",
            "-1",
            "1.5",
            "1..5G",
            ".5G",
            "20GB",
            "20X",
            "1 G",
            "99999999T",
            "18446744073709551616",
            "1.0000000001G",
            "ä",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.50 KiB"),
            (20 << 30, "20 GiB"),
            ((20 << 30) + (1 << 29), "20.5 GiB"),
            (u64::MAX, "16383 PiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
