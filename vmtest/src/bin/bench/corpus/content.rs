//! What files hold: text and programs that compress about as real ones do, and what is compressed already.

use super::random::{Random, bits};

/// Words in the vocabulary of texts, and instructions in that of programs.
const VOCABULARY: usize = 1 << 11;

/// What all files of a layer have in common.
pub(super) struct Content {
    words: Vec<Vec<u8>>,
    codes: Vec<[u8; 8]>,
}

impl Content {
    pub(super) fn new(random: &mut Random) -> Self {
        Self {
            words: (0..VOCABULARY).map(|rank| word(random, rank)).collect(),
            codes: (0..VOCABULARY)
                .map(|_| random.next().to_le_bytes())
                .collect(),
        }
    }

    /// Text like source code: lines of words, some of them much more frequent than others.
    pub(super) fn text(&self, random: &mut Random, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 256);
        while bytes.len() < length {
            let line = random.next();
            bytes.extend(&b"            "[..4 * bits(line, 0, 2)]);
            for _ in 0..4 + bits(line, 2, 3) {
                let number = random.next();
                bytes.extend(&self.words[frequent(number)]);
                bytes.push(b"  .,(=;)"[bits(number, 32, 3)]);
            }
            bytes.push(b'\n');
        }
        bytes.truncate(length);
        bytes
    }

    /// Bytes like a program's: frequent instructions, operands, and pages filled up with zeros.
    pub(super) fn program(&self, random: &mut Random, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 4096);
        while bytes.len() < length {
            let number = random.next();
            let code = &self.codes[frequent(number)];
            bytes.extend(&code[..2 + bits(number, 24, 2)]);
            match bits(number, 32, 12) {
                0 => bytes.resize(bytes.len().next_multiple_of(4096), 0),
                1..0x600 => bytes.extend(&(number >> 44).to_le_bytes()[..2]),
                _ => {}
            }
        }
        bytes.truncate(length);
        bytes
    }
}

/// Bytes that do not compress, like those of pictures and archives.
pub(super) fn noise(random: &mut Random, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A word that can be spoken; the frequent ones, which have a low rank, are short.
pub(super) fn word(random: &mut Random, rank: usize) -> Vec<u8> {
    let mut word = Vec::new();
    let syllables = 1 + rank.checked_ilog2().unwrap_or_default() / 4;
    for _ in 0..syllables {
        let number = random.next();
        word.push(b"bcdfghklmnprstvz"[bits(number, 0, 4)]);
        word.push(b"aeiouaei"[bits(number, 4, 3)]);
        if bits(number, 7, 1) == 0 {
            word.push(b"nrstlmxk"[bits(number, 8, 3)]);
        }
    }
    word
}

/// An index into the vocabulary, small ones more often.
fn frequent(number: u64) -> usize {
    bits(number, 0, 11) * bits(number, 11, 11) / VOCABULARY
}
