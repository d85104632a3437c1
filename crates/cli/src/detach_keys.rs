//! Which keys leave a process alone that goes on, and how they are found in what is typed.

use std::str::FromStr;

/// The keys that have one detach, as `docker` writes them: `ctrl-p,ctrl-q`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    /// How many of them were typed last, and are held back.
    held: usize,
}

impl FromStr for DetachKeys {
    type Err = String;

    /// Keys with commas between: a character, or ctrl- and a letter or one of `@[\]^_`. None: never.
    fn from_str(text: &str) -> Result<Self, String> {
        let key = |word: &str| -> Option<u8> {
            let mut letters = word.strip_prefix("ctrl-").unwrap_or(word).bytes();
            let (letter, None) = (letters.next()?, letters.next()) else {
                return None;
            };
            match (word.len(), letter) {
                (1, 0x20..=0x7e) => Some(letter),
                (1, _) => None,
                // A control key is the low five bits of its letter.
                (_, b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_') => Some(letter & 0x1f),
                _ => None,
            }
        };
        let words = text.split(',').filter(|_| !text.is_empty());
        let keys: Option<Vec<u8>> = words.map(key).collect();
        match keys {
            Some(keys) => Ok(Self { keys, held: 0 }),
            None => Err(
                "write keys with commas between, each a character or ctrl- and a letter, such as \
                 ctrl-p,ctrl-q"
                    .to_owned(),
            ),
        }
    }
}

impl DetachKeys {
    /// Takes what was typed. What goes to the process is put into `out`; keys that may be the beginning of
    /// the sequence are held back until the next. True: the sequence is whole.
    pub(crate) fn feed(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        for byte in typed {
            // What is held back and the new key, without what cannot be the sequence's beginning.
            let mut last = self.keys.get(..self.held).unwrap_or_default().to_vec();
            last.push(*byte);
            let skip = (0..last.len())
                .find(|skip| self.keys.starts_with(last.get(*skip..).unwrap_or_default()))
                .unwrap_or(last.len());
            out.extend(last.drain(..skip));
            self.held = last.len();
            if self.held > 0 && self.held == self.keys.len() {
                self.held = 0;
                return true;
            }
        }
        false
    }

    /// What is held back at the end of what is typed.
    pub(crate) fn rest(&self) -> &[u8] {
        self.keys.get(..self.held).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> DetachKeys {
        text.parse().unwrap()
    }

    /// What the process gets, key by key, and whether it is detached from.
    fn typed(keys: &mut DetachKeys, text: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let detached = text.chunks(1).any(|key| keys.feed(key, &mut out));
        (out, detached)
    }

    #[test]
    fn keys_are_read() {
        assert_eq!(keys("ctrl-p,ctrl-q").keys, [16, 17]);
        assert_eq!(keys("a,ctrl-@,ctrl-[,ctrl-\\").keys, [b'a', 0, 27, 28]);
        assert!(keys("").keys.is_empty());
        for bad in ["ctrl-", "ctrl-ab", "ab", "a,,b", "ctrl-1", "ä", "ctrl-P"] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sequence_detaches_and_its_parts_go_through() {
        let mut usual = keys("ctrl-p,ctrl-q");
        assert_eq!(typed(&mut usual, b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(
            typed(&mut usual, b"\x10x\x11"),
            (b"\x10x\x11".to_vec(), false)
        );
        assert_eq!(typed(&mut usual, b"\x10\x10\x11"), (b"\x10".to_vec(), true));
        assert_eq!(typed(&mut usual, b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(usual.rest(), b"\x10");

        let mut again = keys("a,a,b");
        assert_eq!(typed(&mut again, b"aaab"), (b"a".to_vec(), true));
        let mut one = keys("ctrl-]");
        assert_eq!(typed(&mut one, b"x\x1d"), (b"x".to_vec(), true));
        let mut never = keys("");
        assert_eq!(
            typed(&mut never, b"\x10\x11"),
            (b"\x10\x11".to_vec(), false)
        );
        let mut out = Vec::new();
        assert!(keys("ctrl-p,ctrl-q").feed(b"12\x10\x11rest", &mut out) && out == b"12");
    }
}
