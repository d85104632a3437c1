//! What a VM may be called: a name is also a folder's, and stands in tables and file names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// Characters of the longest name.
pub const LONGEST_NAME: usize = 64;

/// The name of a VM: 1 to 64 letters and digits of ASCII, `-`, `_` and `.`, a letter or digit first.
///
/// ```
/// use opengcs_monitor::Name;
///
/// assert!("build-1".parse::<Name>().is_ok());
/// assert!("../build".parse::<Name>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = |why: &str| {
            let shown: String = text.chars().take(LONGEST_NAME).collect();
            Err(Error::new(
                ErrorKind::Invalid,
                format!("{shown:?} cannot be a VM's name: {why}"),
            ))
        };
        if text.is_empty() {
            return refused("it is empty");
        }
        if text.len() > LONGEST_NAME {
            return refused("it is longer than 64 characters");
        }
        if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return refused("a letter (a to z) or a digit comes first");
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !text.chars().all(allowed) {
            return refused("it may have letters (a to z), digits, '-', '_' and '.'");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_paths_and_no_options_are_taken() {
        let longest = "a".repeat(LONGEST_NAME);
        for name in ["a", "0", "build-1", "A.b_c", "a..b", longest.as_str()] {
            assert_eq!(name.parse::<Name>().unwrap().as_str(), name);
        }
        let too_long = "a".repeat(LONGEST_NAME + 1);
        for name in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "_a",
            "a/b",
            "../a",
            "a\\b",
            "a b",
            "a\n",
            "a\0",
            "ä",
            "a:b",
            too_long.as_str(),
        ] {
            let error = name.parse::<Name>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }
}
