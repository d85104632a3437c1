//! GNU's four ways to write down where the data of a sparse file is.

use super::Run;
use super::header::{BLOCK, Header, number};
use super::pax;
use crate::{Error, Result};

/// The most runs that one file may have (16 MiB of memory).
const MAX_RUNS: usize = 1 << 20;

/// A sparse file's map, or where to find it.
pub(super) enum Map {
    Given { runs: Vec<Run>, real_size: u64 },
    InContent { real_size: u64 },
}

fn too_many() -> Error {
    Error::unsupported(format!(
        "the sparse file has more than {MAX_RUNS} data runs"
    ))
}

fn bad_map() -> Error {
    Error::corrupt("the map of the sparse file is not in its form")
}

/// The old GNU format: four runs in the header, 21 in each block after it.
pub(super) struct GnuMap {
    pub(super) runs: Vec<Run>,
    pub(super) real_size: u64,
    /// Whether another block of runs follows.
    pub(super) more: bool,
}

impl GnuMap {
    pub(super) fn from_header(header: &Header) -> Result<Self> {
        let real_size = number(&header.0[483..495])
            .ok()
            .and_then(|size| u64::try_from(size).ok())
            .ok_or_else(|| Error::corrupt("the sparse file's real size is not a number"))?;
        let mut map = Self {
            runs: Vec::new(),
            real_size,
            more: header.0[482] != 0,
        };
        map.take_runs(&header.0[386..482])?;
        Ok(map)
    }

    pub(super) fn take_extension(&mut self, block: &[u8; BLOCK]) -> Result<()> {
        self.more = block[504] != 0;
        self.take_runs(&block[..504])
    }

    fn take_runs(&mut self, table: &[u8]) -> Result<()> {
        for slot in table.chunks_exact(24) {
            let (offset, length) = slot.split_at(12);
            // A slot that starts with NUL is unused, and so are those after it.
            if offset[0] == 0 {
                break;
            }
            let value = |field| {
                number(field)
                    .ok()
                    .and_then(|value| u64::try_from(value).ok())
                    .ok_or_else(bad_map)
            };
            if self.runs.len() >= MAX_RUNS {
                return Err(too_many());
            }
            self.runs.push(Run {
                offset: value(offset)?,
                length: value(length)?,
            });
        }
        Ok(())
    }
}

/// The `GNU.sparse.*` records of the three PAX formats.
#[derive(Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    real_size: Option<u64>,
    runs: Option<Vec<Run>>,
    pending: Option<u64>,
}

impl PaxSparse {
    /// Takes one record, its key without the prefix; `None` when its value makes no sense.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"name" => self.name = (!value.is_empty()).then(|| value.to_vec()),
            b"major" => self.major = Some(pax::decimal(value)?),
            b"minor" => self.minor = Some(pax::decimal(value)?),
            b"size" | b"realsize" => self.real_size = Some(pax::decimal(value)?),
            b"offset" => self.pending = Some(pax::decimal(value)?),
            b"numbytes" => {
                let offset = self.pending.take()?;
                let length = pax::decimal(value)?;
                self.push(Run { offset, length })?;
            }
            b"map" => {
                let mut numbers = value.split(|byte| *byte == b',').map(pax::decimal);
                self.runs = Some(Vec::new());
                if !value.is_empty() {
                    while let Some(offset) = numbers.next() {
                        let run = Run {
                            offset: offset?,
                            length: numbers.next()??,
                        };
                        self.push(run)?;
                    }
                }
            }
            b"numblocks" => {
                pax::decimal(value)?;
                self.runs.get_or_insert_default();
            }
            _ => {}
        }
        Some(())
    }

    fn push(&mut self, run: Run) -> Option<()> {
        let runs = self.runs.get_or_insert_default();
        runs.push(run);
        (runs.len() <= MAX_RUNS).then_some(())
    }

    /// What the records amount to; `None` when the file is not sparse.
    pub(super) fn map(self) -> Result<Option<Map>> {
        let size_missing = || Error::corrupt("the sparse file's real size is missing");
        match (self.major, self.minor, self.runs) {
            (Some(1), Some(0) | None, _) => Ok(Some(Map::InContent {
                real_size: self.real_size.ok_or_else(size_missing)?,
            })),
            (None | Some(0), _, Some(runs)) => Ok(Some(Map::Given {
                runs,
                real_size: self.real_size.ok_or_else(size_missing)?,
            })),
            (Some(major), minor, _) if major > 0 => Err(Error::unsupported(format!(
                "GNU sparse format {major}.{} is not known",
                minor.unwrap_or(0)
            ))),
            _ => Ok(None),
        }
    }
}

/// GNU sparse 1.0's map: a count, then offset and length of each run, one number a line.
#[derive(Default)]
pub(super) struct TextMap {
    expected: Option<u64>,
    offset: Option<u64>,
    digits: Vec<u8>,
    pub(super) runs: Vec<Run>,
}

impl TextMap {
    pub(super) fn complete(&self) -> bool {
        self.expected == Some(self.runs.len() as u64) && self.offset.is_none()
    }

    /// Takes one block; what follows the last line in it is padding.
    pub(super) fn take(&mut self, block: &[u8; BLOCK]) -> Result<()> {
        for byte in block {
            if self.complete() {
                break;
            }
            if *byte != b'\n' {
                if self.digits.len() >= 20 {
                    return Err(bad_map());
                }
                self.digits.push(*byte);
                continue;
            }
            let value = pax::decimal(&self.digits).ok_or_else(bad_map)?;
            self.digits.clear();
            match (self.expected, self.offset.take()) {
                (None, _) => {
                    if value > MAX_RUNS as u64 {
                        return Err(too_many());
                    }
                    self.expected = Some(value);
                }
                (Some(_), None) => self.offset = Some(value),
                (Some(_), Some(offset)) => self.runs.push(Run {
                    offset,
                    length: value,
                }),
            }
        }
        Ok(())
    }
}

/// Holds a map against the file's size and its stored bytes; empty runs are dropped.
pub(super) fn check(runs: Vec<Run>, real_size: u64, stored: u64) -> Result<Vec<Run>> {
    let mut end: u64 = 0;
    let mut sum: u64 = 0;
    for run in &runs {
        if run.offset < end {
            return Err(Error::corrupt(
                "the runs of the sparse file overlap or are out of order",
            ));
        }
        end = run
            .offset
            .checked_add(run.length)
            .filter(|end| *end <= real_size)
            .ok_or_else(|| Error::corrupt("a run of the sparse file lies beyond its end"))?;
        sum += run.length;
    }
    if sum != stored {
        return Err(Error::corrupt(format!(
            "the runs of the sparse file make {sum} bytes, and {stored} are stored"
        )));
    }
    Ok(runs.into_iter().filter(|run| run.length > 0).collect())
}
