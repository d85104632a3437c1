//! Decides where one gzip member ends and what may follow it: another member, zeros, or nothing.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

use super::source::Source;
use crate::Error;

/// Reads all members of a gzip input as one stream.
pub(super) struct MembersReader<R: Read> {
    member: Option<GzDecoder<Source<R>>>,
}

impl<R: Read> MembersReader<R> {
    pub(super) fn new(source: Source<R>) -> Self {
        Self {
            member: Some(GzDecoder::new(source)),
        }
    }
}

impl<R: Read> Read for MembersReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(member) = self.member.take() else {
                break;
            };
            let mut source = member.into_inner();
            let next = source.peek(2)?;
            if next == [0x1f, 0x8b] {
                self.member = Some(GzDecoder::new(source));
            } else {
                expect_zeros(&mut source)?;
            }
        }
        Ok(0)
    }
}

/// Padding behind the last member is zeros (tapes, and tools that round up).
fn expect_zeros<R: Read>(source: &mut Source<R>) -> io::Result<()> {
    loop {
        let rest = source.fill_buf()?;
        if rest.is_empty() {
            return Ok(());
        }
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        let all = zeros == rest.len();
        source.consume(zeros);
        if !all {
            return Err(
                Error::corrupt("the gzip input is followed by something that is not gzip")
                    .with_offset(source.state().consumed())
                    .into(),
            );
        }
    }
}
