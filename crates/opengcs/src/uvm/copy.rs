//! How bytes go from one stream to another: whole, in order, and shown in the log when asked for.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::environment::Environment;

/// Variable of the environment: how many first bytes of each copy are logged, at debug level.
pub const LOG_VARIABLE: &str = "OPENGCS_LOG_DATA_FROM_UVM";

const BUFFER: usize = 256 << 10;
/// No log line gets longer, whatever the variable says.
const MOST_LOGGED: usize = 1 << 20;

/// Shows the first bytes of a copy in the log.
pub(crate) struct DataLog {
    name: String,
    left: usize,
}

impl DataLog {
    pub(crate) fn new(name: impl Into<String>, environment: &Environment) -> Self {
        // A value that is no number must not stop a copy: it is only about the log.
        let left = environment
            .number(LOG_VARIABLE)
            .ok()
            .flatten()
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(0)
            .min(MOST_LOGGED);
        Self {
            name: name.into(),
            left,
        }
    }

    pub(crate) fn see(&mut self, bytes: &[u8]) {
        if self.left == 0 {
            return;
        }
        let shown = bytes.get(..self.left).unwrap_or(bytes);
        self.left -= shown.len();
        tracing::debug!("{}:\n{}", self.name, hex_dump(shown));
    }
}

/// Sixteen bytes a line: offset, hexadecimal, text.
fn hex_dump(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for (index, line) in bytes.chunks(16).enumerate() {
        let _ = write!(out, "{:08x} ", index * 16);
        for column in 0..16 {
            match line.get(column) {
                Some(byte) => {
                    let _ = write!(out, " {byte:02x}");
                }
                None => out.push_str("   "),
            }
        }
        out.push_str("  |");
        out.extend(line.iter().map(|byte| {
            if byte.is_ascii_graphic() || *byte == b' ' {
                char::from(*byte)
            } else {
                '.'
            }
        }));
        out.push_str("|\n");
    }
    out
}

/// Which side of a copy failed.
#[derive(Debug)]
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies until the reader's end, and flushes. Closing the writer is the caller's.
pub(super) async fn copy(
    reader: &mut (impl AsyncRead + Unpin + ?Sized),
    writer: &mut (impl AsyncWrite + Unpin + ?Sized),
    mut log: DataLog,
    mut moved: impl FnMut(u64),
) -> Result<u64, CopyError> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        let count = reader.read(&mut buffer).await.map_err(CopyError::Read)?;
        if count == 0 {
            writer.flush().await.map_err(CopyError::Write)?;
            return Ok(total);
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        log.see(bytes);
        writer.write_all(bytes).await.map_err(CopyError::Write)?;
        total += count as u64;
        moved(total);
        // What a terminal shows must not wait for the next byte.
        writer.flush().await.map_err(CopyError::Write)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_shows_offsets_bytes_and_text() {
        let dump = hex_dump(b"abcdefghijklmnop\x00z");
        let lines: Vec<_> = dump.lines().collect();
        assert!(lines[0].starts_with("00000000  61 62 63"));
        assert!(lines[0].ends_with("|abcdefghijklmnop|"));
        assert!(lines[1].starts_with("00000010  00 7a"));
        assert!(lines[1].ends_with("|.z|"));
    }

    #[test]
    fn the_variable_bounds_what_is_shown() {
        let mut log = DataLog::new("x", &Environment::fixed([(LOG_VARIABLE, "3")]));
        log.see(b"ab");
        assert_eq!(log.left, 1);
        log.see(b"cdef");
        assert_eq!(log.left, 0);
        let none = DataLog::new("x", &Environment::fixed([(LOG_VARIABLE, "many")]));
        assert_eq!(none.left, 0);
    }
}
