//! Decides from its first bytes how an input is compressed, and undoes it.
//!
//! Plain, gzip (also of several members), zstd (also of several and skippable
//! frames) and xz (also of several streams) are read. The input's end is
//! checked: cut short, corrupt or followed by something else is an error that
//! names the format and the byte in the compressed input.

use std::io::{self, Read};

use crate::{Error, Result};
use source::Source;

mod gzip;
#[cfg(any(test, not(feature = "zstd")))]
mod pure_zstd;
mod source;

/// How a stream is compressed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The XZ format.
    Xz,
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
        })
    }
}

/// How far back a stream may reach, in MiB: it says how much of what it gave must be in memory, and
/// that is memory besides all else that a conversion takes. It is what `zstd -d` grants unasked; `xz -9`
/// needs half of it.
const WINDOW_MIB: u32 = 128;
/// The same for the xz decoder, which counts its other memory too.
const XZ_MEMORY_KIB: u32 = (WINDOW_MIB + 1) * 1024;

#[cfg(feature = "zstd")]
type ZstdReader<R> = zstd::stream::read::Decoder<'static, Source<R>>;
#[cfg(not(feature = "zstd"))]
type ZstdReader<R> = pure_zstd::FramesReader<R>;

enum Decoder<R: Read> {
    Plain(Source<R>),
    Gzip(Box<gzip::MembersReader<R>>),
    Zstd(Box<ZstdReader<R>>),
    Xz(Box<lzma_rust2::XzReader<Source<R>>>),
}

/// Reads the uncompressed bytes of an input that may be compressed.
///
/// Errors of the input and of the format both come as an [`Error`] within the
/// [`io::Error`].
pub(crate) struct Decompressor<R: Read> {
    decoder: Decoder<R>,
    compression: Compression,
    state: source::State,
}

impl<R: Read> Decompressor<R> {
    /// Looks at the first bytes of `input`.
    ///
    /// # Errors
    ///
    /// The input cannot be read, is empty, or is of a format that is not supported.
    pub(crate) fn new(input: R) -> Result<Self> {
        let mut source = Source::new(input);
        let state = source.state();
        let magic = source
            .peek(6)
            .map_err(|error| explain(&state, Compression::None, error))?;
        let compression = match magic {
            [] => return Err(Error::corrupt("the input is empty: not a tar stream")),
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Compression::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31 | 0x17, ..] => return Err(foreign("bzip2")),
            [0x04, 0x22, 0x4d, 0x18, ..] => return Err(foreign("lz4")),
            [0x1f, 0x9d, ..] => return Err(foreign("compress (.Z)")),
            [b'L', b'Z', b'I', b'P', 1, ..] => return Err(foreign("lzip")),
            _ => Compression::None,
        };
        let decoder = match compression {
            Compression::None => Decoder::Plain(source),
            Compression::Gzip => Decoder::Gzip(Box::new(gzip::MembersReader::new(source))),
            Compression::Zstd => Decoder::Zstd(Box::new(open_zstd(source)?)),
            Compression::Xz => Decoder::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(
                source,
                true,
                XZ_MEMORY_KIB,
            ))),
        };
        Ok(Self {
            decoder,
            compression,
            state,
        })
    }

    /// What was found.
    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    /// How many bytes of the compressed input have been used.
    #[cfg(test)]
    pub(crate) fn consumed(&self) -> u64 {
        self.state.consumed()
    }
}

#[cfg(feature = "zstd")]
fn open_zstd<R: Read>(source: Source<R>) -> Result<ZstdReader<R>> {
    zstd::stream::read::Decoder::with_buffer(source)
        .map_err(|error| Error::io("cannot start the zstd decoder", error))
}

#[cfg(not(feature = "zstd"))]
fn open_zstd<R: Read>(source: Source<R>) -> Result<ZstdReader<R>> {
    Ok(pure_zstd::FramesReader::new(source))
}

fn foreign(name: &str) -> Error {
    Error::unsupported(format!(
        "the input is compressed with {name}, which is not supported (gzip, zstd and xz are)"
    ))
    .with_offset(0)
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = match &mut self.decoder {
            Decoder::Plain(source) => source.read(buffer),
            Decoder::Gzip(reader) => reader.read(buffer),
            Decoder::Zstd(reader) => reader.read(buffer),
            Decoder::Xz(reader) => reader.read(buffer),
        };
        result.map_err(|error| explain(&self.state, self.compression, error).into())
    }
}

/// Turns what a decoder says into what went wrong.
fn explain(state: &source::State, compression: Compression, error: io::Error) -> Error {
    if let Some(failure) = state.take_failure() {
        return Error::io("cannot read the input", failure);
    }
    if error
        .get_ref()
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>)
    {
        return Error::io("cannot read the input", error);
    }
    let offset = state.consumed();
    // What the zstd library says, and what the xz decoder does.
    let too_much = match compression {
        Compression::Zstd => error.to_string().contains("too much memory"),
        Compression::Xz => error.kind() == io::ErrorKind::OutOfMemory,
        Compression::None | Compression::Gzip => false,
    };
    if too_much {
        return Error::unsupported(format!(
            "the {compression} input reaches back further than the {WINDOW_MIB} MiB that are granted \
             (compress it with a smaller window or dictionary)"
        ))
        .with_offset(offset);
    }
    if state.at_end() || error.kind() == io::ErrorKind::UnexpectedEof {
        Error::corrupt(format!("the {compression} input ends too early")).with_offset(offset)
    } else {
        Error::corrupt(format!("the {compression} input is corrupt"))
            .with_offset(offset)
            .with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::ErrorKind;

    fn sample() -> Vec<u8> {
        let mut state = 1u32;
        (0..200_000u32)
            .map(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if i % 3 == 0 {
                    (state >> 24) as u8
                } else {
                    b'x'
                }
            })
            .collect()
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[cfg(feature = "zstd")]
    #[test]
    fn zstd_with_a_window_of_two_gibibytes_is_unsupported() {
        let frame = b"\x28\xb5\x2f\xfd\0\xa8\x01\0\0";
        let mut reader = Decompressor::new(&frame[..]).unwrap();
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        let error = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }

    #[cfg(feature = "zstd")]
    fn zstd(data: &[u8]) -> Vec<u8> {
        let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(data: &[u8]) -> Vec<u8> {
        let mut encoder =
            lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// Gives its bytes one at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let end = buffer.len().min(1);
            self.0.read(&mut buffer[..end])
        }
    }

    fn inflate(input: &[u8]) -> Result<(Compression, Vec<u8>)> {
        let mut reader = Decompressor::new(input)?;
        let mut out = Vec::new();
        reader
            .read_to_end(&mut out)
            .map_err(|error| Error::io("read", error))?;
        assert_eq!(reader.consumed(), input.len() as u64);
        let mut dripped = Vec::new();
        Decompressor::new(Drip(input))?
            .read_to_end(&mut dripped)
            .map_err(|error| Error::io("read", error))?;
        assert_eq!(out, dripped);
        Ok((reader.compression(), out))
    }

    type Encode = fn(&[u8]) -> Vec<u8>;

    fn formats() -> Vec<(Compression, Encode)> {
        vec![
            (Compression::Gzip, gzip as Encode),
            #[cfg(feature = "zstd")]
            (Compression::Zstd, zstd),
            (Compression::Xz, xz),
        ]
    }

    #[test]
    fn each_format_is_recognised_and_read() {
        let data = sample();
        assert_eq!(inflate(&data).unwrap(), (Compression::None, data.clone()));
        for (compression, encode) in formats() {
            assert_eq!(
                inflate(&encode(&data)).unwrap(),
                (compression, data.clone())
            );
        }
    }

    #[test]
    fn members_follow_each_other() {
        let data = sample();
        for (compression, encode) in formats() {
            let mut twice = encode(&data[..1000]);
            twice.extend(encode(&[]));
            twice.extend(encode(&data[1000..]));
            assert_eq!(inflate(&twice).unwrap(), (compression, data.clone()));
        }
    }

    #[test]
    fn gzip_may_be_padded_with_zeros() {
        let mut input = gzip(b"abc");
        input.extend([0; 700]);
        assert_eq!(inflate(&input).unwrap().1, b"abc");
    }

    #[test]
    fn xz_streams_may_be_padded_with_zeros_by_fours() {
        let mut input = xz(b"abc");
        input.extend([0; 8]);
        input.extend(xz(b"def"));
        input.extend([0; 4]);
        assert_eq!(inflate(&input).unwrap().1, b"abcdef");
        input.push(0);
        assert_eq!(inflate(&input).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[cfg(feature = "zstd")]
    #[test]
    fn skippable_frames_are_skipped() {
        let skippable = [0x52, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let mut input = skippable.to_vec();
        input.extend(zstd(b"abc"));
        input.extend(skippable);
        input.extend(zstd(b"def"));
        assert_eq!(inflate(&input).unwrap().1, b"abcdef");
        let mut out = Vec::new();
        pure_zstd::FramesReader::new(Source::new(&input[..]))
            .read_to_end(&mut out)
            .unwrap();
        assert_eq!(out, b"abcdef");
    }

    #[cfg(feature = "zstd")]
    #[test]
    fn pure_zstd_agrees_and_checks() {
        let data = sample();
        let mut input = zstd(&data);
        let read = |input: &[u8]| {
            let mut out = Vec::new();
            pure_zstd::FramesReader::new(Source::new(input))
                .read_to_end(&mut out)
                .map(|_| out)
        };
        assert_eq!(read(&input).unwrap(), data);
        assert!(read(&input[..input.len() - 2]).is_err());
        let last = input.len() - 1;
        input[last] ^= 1;
        assert!(read(&input).is_err());
        input[last] ^= 1;
        input.push(7);
        assert!(read(&input).is_err());
    }

    /// An xz stream that says that it needs a dictionary of 2^27 or 2^28 bytes.
    fn xz_with_dictionary(code: u8) -> Vec<u8> {
        let mut input = xz(b"abc");
        let filter = input.windows(2).position(|at| at == [0x21, 1]).unwrap();
        input[filter + 2] = code;
        let end = 12 + usize::from(input[12]) * 4;
        let mut sum = flate2::Crc::new();
        sum.update(&input[12..end]);
        input[end..end + 4].copy_from_slice(&sum.sum().to_le_bytes());
        input
    }

    #[test]
    fn xz_may_ask_for_128_mebibytes_and_no_more() {
        assert_eq!(inflate(&xz_with_dictionary(30)).unwrap().1, b"abc");
        let error = inflate(&xz_with_dictionary(32)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("128 MiB"), "{error}");
    }

    #[test]
    fn cut_short_names_format_and_offset() {
        let data = sample();
        for (compression, encode) in formats() {
            let whole = encode(&data);
            for cut in [whole.len() - 1, whole.len() - 9, whole.len() / 2, 8] {
                let error = inflate(&whole[..cut]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                let line = error.to_string();
                assert!(line.contains(&compression.to_string()), "{line}");
                assert!(line.contains("ends too early"), "{cut}: {line}");
                assert!(error.offset().is_some());
            }
        }
    }

    #[test]
    fn flipped_byte_is_corrupt() {
        let data = sample();
        for (compression, encode) in formats() {
            let mut input = encode(&data);
            let middle = input.len() / 2;
            input[middle] ^= 0x55;
            let error = inflate(&input).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(&compression.to_string()));
        }
    }

    #[test]
    fn rubbish_behind_is_corrupt() {
        for (_, encode) in formats() {
            let mut input = encode(b"abc");
            input.extend(b"rubbish that is no header");
            assert_eq!(inflate(&input).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn other_formats_are_named() {
        for (input, name) in [
            (&b"BZh91AY&SY"[..], "bzip2"),
            (b"\x04\x22\x4d\x18rest", "lz4"),
        ] {
            let error = inflate(input).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(name));
        }
        assert_eq!(inflate(b"").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn failing_input_is_not_called_corrupt() {
        struct Fails(usize);
        impl Read for Fails {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let whole = gzip(&sample());
                if self.0 >= 1000 {
                    return Err(io::Error::other("cable pulled"));
                }
                let end = buffer.len().min(1000 - self.0);
                buffer[..end].copy_from_slice(&whole[self.0..self.0 + end]);
                self.0 += end;
                Ok(end)
            }
        }
        let mut reader = Decompressor::new(Fails(0)).unwrap();
        let error = Error::io("read", reader.read_to_end(&mut Vec::new()).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(
            std::error::Error::source(&error)
                .unwrap()
                .to_string()
                .contains("cable")
        );
    }
}
