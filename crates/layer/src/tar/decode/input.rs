//! Takes bytes and blocks from the tar: where it ends, and what may stand behind its end.

use std::io::BufRead;

use super::Decoder;
use crate::problem::ProblemKind;
use crate::tar::header::{BLOCK, Header};
use crate::{Error, Result};

impl<R: BufRead> Decoder<R> {
    /// Reads on to the end of the input, so that its own checks are made; at most `most` bytes,
    /// where it is known to have none and perhaps no end.
    pub(crate) fn drain(&mut self, most: Option<u64>) -> Result<()> {
        self.settle();
        let start = self.position;
        let mut zeros = true;
        let mut head = Vec::new();
        let endless = loop {
            let left = most.map_or(u64::MAX, |most| most - (self.position - start));
            let buffer = self
                .input
                .fill_buf()
                .map_err(|error| Error::io("cannot read the tar", error))?;
            if buffer.is_empty() || left == 0 {
                break !buffer.is_empty();
            }
            let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let piece = &buffer[..length];
            zeros = zeros && piece.iter().all(|byte| *byte == 0);
            head.extend_from_slice(&piece[..length.min(BLOCK - head.len())]);
            self.input.consume(length);
            self.position += length as u64;
        };
        // A disk image begins as an empty tar does.
        if start <= 2 * BLOCK as u64 && (!zeros || endless) {
            // The magic number of ext4's superblock, which stands behind 1024 bytes of boot record.
            return Err(Error::corrupt(if head.get(56..58) == Some(&[0x53, 0xef]) {
                "no tar: it is a disk with an ext4 file system"
            } else if zeros {
                "no tar: it is nothing but zeros"
            } else {
                "no tar: there is no entry before its end, and other data behind it"
            }));
        }
        if !zeros {
            self.warnings.push_as(
                ProblemKind::TrailingData,
                b"",
                format!("what follows the end of the tar at byte {start} is ignored"),
            );
        } else if endless {
            self.warnings.push_as(
                ProblemKind::TrailingData,
                b"",
                format!(
                    "the zeros behind the end of the tar at byte {start} were not read to their end"
                ),
            );
        }
        Ok(())
    }

    pub(super) fn settle(&mut self) {
        self.input.consume(std::mem::take(&mut self.lent));
    }

    pub(super) fn fill(&mut self) -> Result<usize> {
        self.input
            .fill_buf()
            .map(<[u8]>::len)
            .map_err(|error| Error::io("cannot read the tar", error))
    }

    pub(super) fn skip(&mut self, mut count: u64, name: &[u8], offset: u64) -> Result<()> {
        while count > 0 {
            let there = self.fill()?;
            if there == 0 {
                return Err(Error::corrupt(format!(
                    "the tar ends at byte {} within this entry's content",
                    self.position
                ))
                .with_entry(name, offset));
            }
            let step = usize::try_from(count).map_or(there, |count| count.min(there));
            self.input.consume(step);
            self.position += step as u64;
            count -= step as u64;
        }
        Ok(())
    }

    /// Fills `block`; how many bytes there were is less only at the end.
    pub(super) fn read_block(&mut self, block: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < block.len() {
            let buffer = self
                .input
                .fill_buf()
                .map_err(|error| Error::io("cannot read the tar", error))?;
            if buffer.is_empty() {
                break;
            }
            let step = buffer.len().min(block.len() - done);
            block[done..done + step].copy_from_slice(&buffer[..step]);
            self.input.consume(step);
            self.position += step as u64;
            done += step;
        }
        Ok(done)
    }

    /// The next header; `None` at the end of the tar or, without end blocks, of the input.
    pub(super) fn read_header(&mut self) -> Result<Option<Header>> {
        let offset = self.position;
        let content = self.content_of_link.take();
        let mut header = Header([0; BLOCK]);
        match self.read_block(&mut header.0)? {
            BLOCK => {}
            0 if offset == 0 => {
                return Err(Error::corrupt("the input is empty: not a tar stream"));
            }
            0 => {
                // Written by some tools, and what a stream that broke off between entries looks like.
                self.warnings.push_as(
ProblemKind::NoEndMark,
                    b"",
                    format!("the tar stops at byte {offset} without its end mark: perhaps it is cut short"),
                );
                self.ended = true;
                return Ok(None);
            }
            short if offset == 0 => {
                return Err(Error::corrupt(format!(
                    "the input is no tar stream: it has {short} bytes, and a header takes {BLOCK}"
                )));
            }
            short => {
                return Err(Error::corrupt(format!(
                    "the tar ends within a header ({short} of {BLOCK} bytes)"
                ))
                .with_offset(offset));
            }
        }
        if header.is_zero() {
            let mut second = Header([0; BLOCK]);
            self.read_block(&mut second.0)?;
            if !second.is_zero() {
                return Err(Error::corrupt(
                    "a single block of zeros stands where a header or the end should be",
                )
                .with_offset(offset));
            }
            self.ended = true;
            return Ok(None);
        }
        if !header.checksum_fits() {
            if let Some(size) = content {
                let rest = size.next_multiple_of(BLOCK as u64) - BLOCK as u64;
                self.skip(rest, b"", offset)?;
                // Damage may look the same, so that it is told.
                self.warnings.push_as(
                    ProblemKind::TrailingData,
                    b"",
                    format!("what follows a hard link at byte {offset} is ignored: it is taken for its content"),
                );
                return self.read_header();
            }
            let message = if offset == 0 {
                match &header.0[..8] {
                    b"vhdxfile" => "no tar: it is a VHDX disk file",
                    b"conectix" => "no tar: it is a VHD disk file",
                    _ => "the input is no tar stream: the first header's checksum does not fit",
                }
            } else {
                "the header's checksum does not fit"
            };
            return Err(Error::corrupt(message).with_offset(offset));
        }
        Ok(Some(header))
    }
}
