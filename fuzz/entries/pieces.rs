//! How a fuzz input of a few kilobytes says what lies in a file of megabytes: its pieces, with nothing between them.
//!
//! ```text
//! flags u8 │ length u24, in sectors │ piece …
//! piece:  at u24, in units of 16 bytes │ count u8, in units │ bytes
//!         at u24                       │ 0                  │ byte u8, count u16: that byte all over
//! ```
//!
//! All numbers are little-endian. Every input means something: what is cut short ends early.
#![allow(dead_code, reason = "each user needs one half of it")]

const UNIT: usize = 16;
const SECTOR: usize = 512;

/// What an input says.
pub struct Pieces {
    /// What the target makes of it.
    pub flags: u8,
    /// Bytes of the file.
    pub length: u64,
    /// Where which bytes lie. They may overlap and lie behind the end.
    pub parts: Vec<(u64, Vec<u8>)>,
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(taken)
}

fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | usize::from(*byte))
}

impl Pieces {
    /// Reads an input; none when it has no head.
    pub fn parse(mut input: &[u8]) -> Option<Self> {
        let flags = take(&mut input, 1)?[0];
        let length = number(take(&mut input, 3)?) * SECTOR;
        let mut parts = Vec::new();
        while let Some(head) = take(&mut input, 4) {
            let at = (number(&head[..3]) * UNIT) as u64;
            if head[3] == 0 {
                let Some(fill) = take(&mut input, 3) else {
                    break;
                };
                parts.push((at, vec![fill[0]; number(&fill[1..]) * UNIT]));
            } else {
                let count = (usize::from(head[3]) * UNIT).min(input.len());
                let Some(bytes) = take(&mut input, count) else {
                    break;
                };
                parts.push((at, bytes.to_vec()));
            }
        }
        Some(Self {
            flags,
            length: length as u64,
            parts,
        })
    }

    /// The whole file, cut at `limit`.
    pub fn expand(&self, limit: usize) -> Vec<u8> {
        let length = usize::try_from(self.length).unwrap_or(limit).min(limit);
        let mut file = vec![0; length];
        for (at, bytes) in &self.parts {
            let Ok(at) = usize::try_from(*at) else {
                continue;
            };
            if let Some(room) = file.get_mut(at..) {
                let count = room.len().min(bytes.len());
                room[..count].copy_from_slice(&bytes[..count]);
            }
        }
        file
    }

    /// The input that stands for a file.
    pub fn encode(flags: u8, file: &[u8]) -> Vec<u8> {
        let mut out = vec![flags];
        out.extend(&file.len().div_ceil(SECTOR).to_le_bytes()[..3]);
        let mut at = 0;
        while at < file.len() {
            let unit = |at: usize| {
                file.get(at..(at + UNIT).min(file.len()))
                    .unwrap_or_default()
            };
            let is_plain = |at: usize| unit(at).iter().all(|byte| *byte == unit(at)[0]);
            let mut end = at;
            if is_plain(at) {
                while end < file.len() && is_plain(end) && file[end] == file[at] {
                    end += UNIT;
                }
                let mut count = (end - at) / UNIT;
                while count > 0 && file[at] != 0 {
                    let step = count.min(0xffff);
                    out.extend(&(at / UNIT).to_le_bytes()[..3]);
                    out.extend([0, file[at]]);
                    out.extend(&step.to_le_bytes()[..2]);
                    at += step * UNIT;
                    count -= step;
                }
            } else {
                while end < file.len() && !is_plain(end) && end - at < 255 * UNIT {
                    end += UNIT;
                }
                out.extend(&(at / UNIT).to_le_bytes()[..3]);
                out.push(((end - at) / UNIT) as u8);
                out.extend(&file[at..end.min(file.len())]);
                out.resize(out.len() + end - end.min(file.len()), 0);
            }
            at = end;
        }
        out
    }
}
