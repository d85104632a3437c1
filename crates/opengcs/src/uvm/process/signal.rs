//! Linux's signals by name and number.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A signal of Linux, whatever the host is.
///
/// ```
/// use opengcs::Signal;
///
/// assert_eq!("SIGTERM".parse::<Signal>()?, Signal::TERM);
/// assert_eq!("hup".parse::<Signal>()?.number(), 1);
/// assert_eq!("RTMIN+3".parse::<Signal>()?.number(), 37);
/// assert_eq!(Signal::from(10).to_string(), "SIGUSR1");
/// # Ok::<(), opengcs::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(i32);

/// The names, in the order of the numbers from 1 on (x86 and ARM).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names of the same.
const ALIASES: [(&str, &str); 3] = [("IOT", "ABRT"), ("CLD", "CHLD"), ("POLL", "IO")];

/// The first and the last real-time signal, as C libraries count them.
const REAL_TIME: (i32, i32) = (34, 64);

impl Signal {
    /// Hang up: its terminal or client has gone.
    pub const HUP: Self = Self(1);
    /// Interrupt, as Ctrl-C.
    pub const INT: Self = Self(2);
    /// Quit, as Ctrl-\.
    pub const QUIT: Self = Self(3);
    /// End at once; no program can refuse.
    pub const KILL: Self = Self(9);
    /// The first that programs may give a meaning.
    pub const USR1: Self = Self(10);
    /// The second that programs may give a meaning.
    pub const USR2: Self = Self(12);
    /// End, please.
    pub const TERM: Self = Self(15);

    /// Its number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }

    pub(super) fn check(self) -> Result<()> {
        if (1..=REAL_TIME.1).contains(&self.0) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{} is no signal; Linux has 1 to 64",
            self.0
        )))
    }
}

/// Any number; one that Linux does not have is refused where it is used.
impl From<i32> for Signal {
    fn from(number: i32) -> Self {
        Self(number)
    }
}

impl FromStr for Signal {
    type Err = Error;

    /// Reads a number, or a name with or without `SIG`, in letters of either case.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            Error::invalid(format!(
                "{text:?} is no signal: give a name such as TERM or a number from 1 to 64"
            ))
        };
        if let Ok(number) = text.parse::<i32>() {
            let signal = Self(number);
            return signal.check().map(|()| signal).map_err(|_| unknown());
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
        let name = alias.map_or(name, |(_, name)| name);
        if let Some(index) = NAMES.iter().position(|known| *known == name) {
            return i32::try_from(index + 1).map(Self).map_err(|_| unknown());
        }
        let offset = |rest: &str| -> Option<i32> {
            let valid = rest.is_empty() || rest.starts_with(['+', '-']);
            let rest = if rest.is_empty() { "0" } else { rest };
            rest.parse().ok().filter(|_| valid)
        };
        let from_end = |name: &str, base: i32| base.checked_add(offset(name)?);
        let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(rest), _) => from_end(rest, REAL_TIME.0),
            (_, Some(rest)) => from_end(rest, REAL_TIME.1),
            _ => None,
        };
        number
            .filter(|number| (REAL_TIME.0..=REAL_TIME.1).contains(number))
            .map(Self)
            .ok_or_else(unknown)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = usize::try_from(self.0)
            .ok()
            .and_then(|number| NAMES.get(number.checked_sub(1)?));
        match name {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        for (text, number) in [
            ("HUP", 1),
            ("sigkill", 9),
            ("SIGIOT", 6),
            ("CLD", 17),
            ("SYS", 31),
            ("15", 15),
            ("RTMIN", 34),
            ("SIGRTMAX", 64),
            ("rtmax-1", 63),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for bad in [
            "", "SIG", "NONE", "0", "65", "-9", "RTMIN-1", "RTMAX+1", "RTMIN5", "RTMINx",
        ] {
            let error = bad.parse::<Signal>().unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
