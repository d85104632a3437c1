//! Reading a VM's logs from its folder while they are written, over the start of a new file too.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::proto::logs_request::Source;
use crate::sys;

/// The console's file in a VM's folder.
pub(crate) fn console(folder: &Path) -> PathBuf {
    path(folder, Source::Console)
}

/// The agent's log in a VM's folder.
pub(crate) fn agent(folder: &Path) -> PathBuf {
    path(folder, Source::Agent)
}

/// The monitor's own log in its folder.
pub(crate) fn monitor(folder: &Path) -> PathBuf {
    path(folder, Source::Monitor)
}

fn path(folder: &Path, source: Source) -> PathBuf {
    folder.join(match source {
        Source::Console => "console.log",
        Source::Agent => "agent.log",
        Source::Monitor | Source::Unspecified => "monitor.log",
    })
}

/// What a full log is called when a new one has been begun.
pub(crate) fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Several logs, each read from its beginning on.
#[derive(Debug)]
pub struct Follow {
    logs: Vec<Log>,
}

#[derive(Debug)]
struct Log {
    source: Source,
    path: PathBuf,
    /// The file before, which is read first.
    older: Option<File>,
    file: Option<File>,
}

impl Follow {
    /// The logs of these sources in a VM's folder; all that people read when none is named.
    pub fn new(folder: &Path, sources: impl IntoIterator<Item = Source>) -> Self {
        let mut wanted: Vec<_> = sources.into_iter().collect();
        wanted.retain(|source| *source != Source::Unspecified);
        if wanted.is_empty() {
            wanted = vec![Source::Console, Source::Monitor];
        }
        let open = |source| {
            let path = path(folder, source);
            Log {
                source,
                older: File::open(older(&path)).ok(),
                file: None,
                path,
            }
        };
        Self {
            logs: wanted.into_iter().map(open).collect(),
        }
    }

    /// Leaves out all that is there now but the last `lines` lines of each.
    #[must_use]
    pub fn last(mut self, lines: u64) -> Self {
        for log in &mut self.logs {
            log.file = File::open(&log.path).ok();
            let missing = log.file.as_mut().map_or(lines, |file| to_last(file, lines));
            match &mut log.older {
                Some(older) if missing > 0 => {
                    to_last(older, missing);
                }
                _ => log.older = None,
            }
        }
        self
    }

    /// The next bytes, at most `limit`; `None`: there are no more yet.
    pub fn next(&mut self, limit: usize) -> Option<(Source, Vec<u8>)> {
        self.logs
            .iter_mut()
            .find_map(|log| Some((log.source, log.read(limit)?)))
    }
}

impl Log {
    fn read(&mut self, limit: usize) -> Option<Vec<u8>> {
        if let Some(older) = &mut self.older {
            match piece(older, limit) {
                Some(bytes) => return Some(bytes),
                None => self.older = None,
            }
        }
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let file = self.file.as_mut()?;
        if let Some(bytes) = piece(file, limit) {
            return Some(bytes);
        }
        if sys::is_at(file, &self.path) {
            return None;
        }
        // A new one was begun. The old one may have got more between the two looks.
        let last = piece(file, limit);
        if last.is_none() {
            self.file = File::open(&self.path).ok();
        }
        last.or_else(|| piece(self.file.as_mut()?, limit))
    }
}

/// Moves to where the last `lines` lines of a file begin; how many it does not have. Logs are bounded, so
/// that one can be read for it; what cannot be read has none.
fn to_last(file: &mut File, lines: u64) -> u64 {
    let mut bytes = Vec::new();
    if file.read_to_end(&mut bytes).is_err() {
        return lines;
    }
    let mut missing = lines;
    let mut start = bytes.len();
    while missing > 0 && start > 0 {
        // Before the line's own end, the end of the line before it.
        let before = bytes.get(..start - 1).unwrap_or_default();
        start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        missing -= 1;
    }
    let start = u64::try_from(start).unwrap_or_default();
    match file.seek(SeekFrom::Start(start)) {
        Ok(_) => missing,
        Err(_) => lines,
    }
}

fn piece(file: &mut File, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; limit];
    let count = file.read(&mut bytes).ok().filter(|count| *count > 0)?;
    bytes.truncate(count);
    Some(bytes)
}

/// The ends of logs, each under its heading, as bundles have them.
#[must_use]
pub fn as_sections(folder: &Path, sources: &[Source]) -> String {
    const MOST: usize = 1 << 20;
    let mut text = String::new();
    for source in sources {
        let mut log = Follow::new(folder, [*source]);
        let mut bytes = Vec::new();
        while let Some((_, more)) = log.next(MOST) {
            bytes.extend(more);
            let excess = bytes.len().saturating_sub(MOST);
            bytes.drain(..excess);
        }
        let said = String::from_utf8_lossy(&bytes);
        let said = match said.trim_end() {
            "" => "(nothing)",
            said => said,
        };
        text.push_str(&format!("==== {}'s log\n{said}\n", title(*source)));
    }
    text
}

fn title(source: Source) -> &'static str {
    match source {
        Source::Console => "console",
        Source::Agent => "agent",
        Source::Monitor | Source::Unspecified => "monitor",
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn all(logs: &mut Follow) -> String {
        let mut text = String::new();
        while let Some((_, bytes)) = logs.next(3) {
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        text
    }

    #[test]
    fn a_log_is_read_over_the_start_of_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = console(folder.path());
        std::fs::write(older(&path), "first ").unwrap();
        let mut logs = Follow::new(folder.path(), [Source::Console]);
        assert_eq!(all(&mut logs), "first ");
        std::fs::write(&path, "second ").unwrap();
        assert_eq!(all(&mut logs), "second ");
        let mut file = File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, b"third ").unwrap();
        std::fs::rename(&path, older(&path)).unwrap();
        std::fs::write(&path, "fourth").unwrap();
        assert_eq!(all(&mut logs), "third fourth");
        assert_eq!(all(&mut logs), "");
    }

    #[test]
    fn the_last_lines_are_taken_over_the_start_of_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = console(folder.path());
        std::fs::write(older(&path), "1\n2\n3\n").unwrap();
        std::fs::write(&path, "4\n\n6").unwrap();
        let last = |lines| all(&mut Follow::new(folder.path(), [Source::Console]).last(lines));
        for (lines, text) in [
            (0, ""),
            (1, "6"),
            (2, "\n6"),
            (3, "4\n\n6"),
            (4, "3\n4\n\n6"),
            (6, "1\n2\n3\n4\n\n6"),
            (u64::MAX, "1\n2\n3\n4\n\n6"),
        ] {
            assert_eq!(last(lines), text, "{lines}");
        }
        let mut logs = Follow::new(folder.path(), [Source::Console]).last(0);
        let mut file = File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, b"7").unwrap();
        assert_eq!(all(&mut logs), "7");
    }

    #[test]
    fn a_bundle_has_a_section_for_a_log_that_is_empty_too() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(console(folder.path()), "booted\n").unwrap();
        let text = as_sections(folder.path(), &[Source::Console, Source::Monitor]);
        assert_eq!(
            text,
            "==== console's log\nbooted\n==== monitor's log\n(nothing)\n"
        );
    }
}
