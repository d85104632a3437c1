//! Decides which place below the root a name in a tar means.
//!
//! A leading `/`, empty components and `.` mean nothing; `..` takes back the
//! component before it. A path that climbs above the root is refused: wherever
//! else it were put, it would overwrite something it does not name.

use crate::problem::ProblemKind;
use crate::whiteout;
use crate::{Error, Result};

/// The longest component, in bytes, as in ext4.
const NAME_MAX: usize = 255;
/// The longest path, in bytes. Linux itself takes 4,096.
const PATH_MAX: usize = 16 * 1024;

/// The components below the root; empty for the root itself.
///
/// Backslashes separate components too when `backslash` is set.
pub(crate) fn components(path: &[u8], backslash: bool) -> Result<Vec<&[u8]>> {
    if path.len() > PATH_MAX {
        return Err(Error::unsupported(format!(
            "the path has {} bytes, and {PATH_MAX} are the most",
            path.len()
        ))
        .with_problem(ProblemKind::LongName));
    }
    let mut components = Vec::new();
    for name in path.split(|byte| *byte == b'/' || (backslash && *byte == b'\\')) {
        match name {
            b"" | b"." => {}
            b".." => {
                if components.pop().is_none() {
                    return Err(Error::corrupt("the path climbs above the root")
                        .with_problem(ProblemKind::EscapingPath));
                }
            }
            // A whiteout's name is longer than the name it hides.
            name if name.strip_prefix(whiteout::PREFIX).unwrap_or(name).len() > NAME_MAX => {
                return Err(Error::unsupported(format!(
                    "a name in the path has {} bytes, and {NAME_MAX} are the most",
                    name.len()
                ))
                .with_problem(ProblemKind::LongName));
            }
            name if name.contains(&0) => {
                return Err(Error::corrupt("the path contains a zero byte"));
            }
            name => components.push(name),
        }
    }
    Ok(components)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(path: &[u8]) -> Result<Vec<u8>> {
        components(path, false).map(|components| components.join(&b'/'))
    }

    #[test]
    fn paths_are_made_plain() {
        for (path, plain) in [
            (&b"a/b"[..], &b"a/b"[..]),
            (b"/a//b/", b"a/b"),
            (b"./a/./b/.", b"a/b"),
            (b"a/x/../b", b"a/b"),
            (b"a/..", b""),
            (b"./", b""),
            (b"/", b""),
            (b"", b""),
            (b"a\\b", b"a\\b"),
            (b"...", b"..."),
            (b"\xff\xfe", b"\xff\xfe"),
        ] {
            assert_eq!(join(path).unwrap(), plain);
        }
        assert_eq!(components(b"a\\b", true).unwrap(), [b"a", b"b"]);
    }

    #[test]
    fn climbing_and_overlong_names_are_refused() {
        assert!(join(b"..").is_err());
        assert!(join(b"a/../../b").is_err());
        assert!(join(b"/../b").is_err());
        assert!(join(&[b'a'; 256]).is_err());
        assert!(join(&[b'a'; 255]).is_ok());
        assert!(join(&b"ab/".repeat(1365)).is_ok());
        assert!(join(&b"ab/".repeat(8000)).is_err());
        assert!(join(b"a\0b").is_err());
    }
}
