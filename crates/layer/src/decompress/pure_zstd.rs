//! Reads zstd without C: the frames one after another, skippable ones skipped, checksums checked.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::source::Source;
use crate::Error;

enum State<R: Read> {
    Between(Source<R>),
    Within(Box<StreamingDecoder<Source<R>, FrameDecoder>>),
    Ended,
}

/// Reads all frames of a zstd input as one stream.
pub(super) struct FramesReader<R: Read> {
    state: State<R>,
}

impl<R: Read> FramesReader<R> {
    pub(super) fn new(source: Source<R>) -> Self {
        Self {
            state: State::Between(source),
        }
    }
}

impl<R: Read> Read for FramesReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Ok(0),
                State::Between(source) => self.state = next_frame(source)?,
                State::Within(mut frame) => {
                    let read = frame.read(buffer)?;
                    if read > 0 {
                        self.state = State::Within(frame);
                        return Ok(read);
                    }
                    let decoder = &frame.decoder;
                    let told = decoder.get_checksum_from_data();
                    if told.is_some() && told != decoder.get_calculated_checksum() {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            "checksum does not match",
                        ));
                    }
                    self.state = State::Between(frame.into_inner());
                }
            }
        }
    }
}

fn next_frame<R: Read>(mut source: Source<R>) -> io::Result<State<R>> {
    loop {
        match *source.peek(8)? {
            [] => return Ok(State::Ended),
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d] => {
                skip(&mut source, 8 + u64::from(u32::from_le_bytes([a, b, c, d])))?;
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let frame = StreamingDecoder::new(source).map_err(io::Error::other)?;
                return Ok(State::Within(Box::new(frame)));
            }
            ref rest => {
                let magic: &[&[u8]] = &[b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"];
                let short = rest.len() < 8
                    && (magic[0].starts_with(rest)
                        || rest.get(1..).is_some_and(|r| magic[1].starts_with(r)));
                let what = if short {
                    "the zstd input ends too early"
                } else {
                    "the zstd input is followed by something that is not zstd"
                };
                return Err(Error::corrupt(what)
                    .with_offset(source.state().consumed())
                    .into());
            }
        }
    }
}

fn skip<R: Read>(source: &mut Source<R>, mut count: u64) -> io::Result<()> {
    while count > 0 {
        let there = source.fill_buf()?.len();
        if there == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let step = usize::try_from(count).unwrap_or(usize::MAX).min(there);
        source.consume(step);
        count -= step as u64;
    }
    Ok(())
}
