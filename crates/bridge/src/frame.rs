//! Where one message ends and the next begins.

use crate::{Error, ErrorKind, MessageType, Result};

/// The size of a frame's header in bytes.
pub const HEADER_SIZE: usize = 16;

/// The size of the largest frame in bytes, header included.
pub const MAX_SIZE: usize = 65_536;

/// A frame's header: `type: u32`, `size: u32` (header included), `id: u64`, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message's type.
    pub message_type: MessageType,
    /// The size of the whole frame in bytes: 16 to 65,536.
    pub size: u32,
    /// The request's id; a response repeats it, notifications have 0.
    pub id: u64,
}

impl Header {
    /// Parses a header, and refuses a size that no frame may have.
    ///
    /// # Errors
    /// [`ErrorKind::Frame`] for a size under 16 or over 65,536.
    pub fn parse(bytes: [u8; HEADER_SIZE]) -> Result<Self> {
        let value = u128::from_le_bytes(bytes);
        let word = |shift: u32| {
            let [a, b, c, d, ..] = value.wrapping_shr(shift).to_le_bytes();
            u32::from_le_bytes([a, b, c, d])
        };
        let header = Self {
            message_type: MessageType(word(0)),
            size: word(32),
            id: u64::from(word(64)) | u64::from(word(96)).wrapping_shl(32),
        };
        header.body_size().map(|_| header)
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let value = u128::from(self.message_type.0)
            | u128::from(self.size).wrapping_shl(32)
            | u128::from(self.id).wrapping_shl(64);
        value.to_le_bytes()
    }

    fn body_size(&self) -> Result<usize> {
        usize::try_from(self.size)
            .ok()
            .filter(|size| *size <= MAX_SIZE)
            .and_then(|size| size.checked_sub(HEADER_SIZE))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Frame,
                    format!(
                        "{} {} has a frame of {} bytes, not {HEADER_SIZE} to {MAX_SIZE}",
                        self.message_type, self.id, self.size
                    ),
                )
            })
    }
}

/// One message, not yet understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The message's type.
    pub message_type: MessageType,
    /// The request's id.
    pub id: u64,
    /// The body, meant to be UTF-8 JSON.
    pub body: Vec<u8>,
}

/// The bytes of one frame.
///
/// # Errors
/// [`ErrorKind::TooLarge`] when it would be over 65,536 bytes.
pub fn encode(message_type: MessageType, id: u64, body: &[u8]) -> Result<Vec<u8>> {
    let size = body
        .len()
        .checked_add(HEADER_SIZE)
        .filter(|size| *size <= MAX_SIZE)
        .and_then(|size| u32::try_from(size).ok())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::TooLarge,
                format!(
                    "{message_type} of {} bytes does not fit in a message of {MAX_SIZE} bytes",
                    body.len()
                ),
            )
        })?;
    let header = Header {
        message_type,
        size,
        id,
    };
    let mut bytes = Vec::with_capacity(HEADER_SIZE.saturating_add(body.len()));
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// Cuts a stream of bytes, however it is chunked, into frames. It never holds more than one frame.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    collected: Vec<u8>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    Body(Header, usize),
    Failed(String),
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes off the front of `input` up to the end of one frame, and gives the frame when
    /// it is whole. Call it again while it gives frames; `input` is then empty.
    ///
    /// # Errors
    /// [`ErrorKind::Frame`] for a frame of a size that is not allowed; from then on always,
    /// because nobody knows where the next frame would begin.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Frame>> {
        loop {
            let wanted = match &self.state {
                State::Header => HEADER_SIZE,
                State::Body(_, size) => *size,
                State::Failed(what) => return Err(Error::new(ErrorKind::Frame, what.clone())),
            };
            let missing = wanted.saturating_sub(self.collected.len());
            let (taken, rest) = input.split_at_checked(missing).unwrap_or((input, &[]));
            self.collected.extend_from_slice(taken);
            *input = rest;
            if self.collected.len() < wanted {
                return Ok(None);
            }
            let bytes = std::mem::take(&mut self.collected);
            match std::mem::take(&mut self.state) {
                State::Body(header, _) => {
                    return Ok(Some(Frame {
                        message_type: header.message_type,
                        id: header.id,
                        body: bytes,
                    }));
                }
                State::Header | State::Failed(_) => self.begin_body(&bytes)?,
            }
        }
    }

    fn begin_body(&mut self, bytes: &[u8]) -> Result<()> {
        let bytes = bytes
            .try_into()
            .expect("exactly a header's bytes were collected");
        let parsed = Header::parse(bytes).and_then(|header| Ok((header, header.body_size()?)));
        match parsed {
            Ok((header, size)) => {
                self.state = State::Body(header, size);
                Ok(())
            }
            Err(error) => {
                self.state = State::Failed(error.to_string());
                Err(error)
            }
        }
    }

    /// Tells whether the stream may end here.
    ///
    /// # Errors
    /// [`ErrorKind::Frame`] when it ends inside a frame.
    pub fn finish(&self) -> Result<()> {
        match &self.state {
            State::Header if self.collected.is_empty() => Ok(()),
            State::Failed(what) => Err(Error::new(ErrorKind::Frame, what.clone())),
            State::Header | State::Body(..) => Err(Error::new(
                ErrorKind::Frame,
                "the connection ended in the middle of a message",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 16] = [1, 9, 0x10, 0x10, 0x12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0x80];

    #[test]
    fn header_is_little_endian() {
        let header = Header::parse(HEADER).unwrap();
        assert_eq!(header.message_type, MessageType::GET_PROPERTIES);
        assert_eq!((header.size, header.id), (18, 0x8000_0000_0000_0007));
        assert_eq!(header.encode(), HEADER);
    }

    #[test]
    fn short_and_oversized_frames_are_refused_for_ever() {
        for size in [0u32, 15, 65_537, u32::MAX] {
            let mut bytes = HEADER;
            bytes[4..8].copy_from_slice(&size.to_le_bytes());
            let mut decoder = Decoder::new();
            let error = decoder.decode(&mut bytes.as_slice()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Frame);
            assert!(error.to_string().contains(&size.to_string()), "{error}");
            let good = encode(MessageType::START, 1, b"{}").unwrap();
            assert!(decoder.decode(&mut good.as_slice()).is_err());
        }
    }

    #[test]
    fn largest_and_smallest_frames_pass() {
        for size in [0, MAX_SIZE - HEADER_SIZE] {
            let bytes = encode(MessageType::START, 3, &vec![b'x'; size]).unwrap();
            let frame = Decoder::new().decode(&mut bytes.as_slice()).unwrap();
            assert_eq!(frame.unwrap().body.len(), size);
        }
        let error = encode(MessageType::START, 3, &vec![0; MAX_SIZE - HEADER_SIZE + 1]);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn end_inside_a_frame_is_an_error() {
        let bytes = encode(MessageType::START, 3, b"{}").unwrap();
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::new();
            assert_eq!(decoder.decode(&mut &bytes[..cut]).unwrap(), None);
            assert_eq!(decoder.finish().is_ok(), cut == 0);
        }
    }
}
