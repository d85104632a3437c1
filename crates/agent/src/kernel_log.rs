//! The kernel's log: to the host with the agent's own, or on the console when there is no host to tell.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
};

use crate::log;

/// What the kernel keeps its log in: a read gives one record, the first ones first.
const KMSG: &str = "/dev/kmsg";

/// The longest record (`PRINTKRB_RECORD_MAX`).
const LONGEST: usize = 8192;

/// How much goes to the console at most, in bytes.
const CONSOLE: usize = 64 << 10;

/// Hands every record on to the log, for as long as the machine runs.
pub(crate) fn follow() {
    let Ok(mut kmsg) = File::open(KMSG) else {
        return;
    };
    let mut buffer = vec![0; LONGEST];
    loop {
        match kmsg.read(&mut buffer) {
            Ok(count) => {
                if let Some(record) = parse(buffer.get(..count).unwrap_or_default()) {
                    log::kernel(record.seconds, record.text);
                }
            }
            // Records were overwritten before we read them: the next read goes on behind the gap.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Puts the end of the log on the console, where the host records it though nobody has dialled.
pub(crate) fn to_console() {
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0));
    let Ok(mut kmsg) = options.open(KMSG) else {
        return;
    };
    let mut buffer = vec![0; LONGEST];
    let mut text = Vec::new();
    loop {
        match kmsg.read(&mut buffer) {
            Ok(count) => {
                if let Some(record) = parse(buffer.get(..count).unwrap_or_default()) {
                    let line = format!("[{:12.6}] {}\n", record.seconds, record.text);
                    text.extend_from_slice(line.as_bytes());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    let begin = text.len().saturating_sub(CONSOLE);
    let _ = io::stderr().write_all(text.get(begin..).unwrap_or_default());
}

#[derive(Debug, PartialEq)]
struct Record<'a> {
    /// Since the machine was started.
    seconds: f64,
    text: &'a str,
}

/// `priority,sequence,microseconds,flags[,…];text`, then lines of properties that begin with a space.
fn parse(record: &[u8]) -> Option<Record<'_>> {
    let record = std::str::from_utf8(record).ok()?;
    let (head, rest) = record.split_once(';')?;
    let microseconds: f64 = head.split(',').nth(2)?.parse().ok()?;
    Some(Record {
        seconds: microseconds / 1e6,
        text: rest.lines().next().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_the_kernel_documents_them() {
        let record = b"7,160,424069,-;pci_root PNP0A03:00: host bridge window\n SUBSYSTEM=acpi\n";
        assert_eq!(
            parse(record),
            Some(Record {
                seconds: 0.424_069,
                text: "pci_root PNP0A03:00: host bridge window"
            })
        );
        for bad in [&b""[..], b"7,160;x", b"no record", b"7,1,x,-;y", b"\xff;"] {
            assert_eq!(parse(bad), None);
        }
    }
}
