//! How results reach stdout and notes reach stderr, and what happens when nobody reads them.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::events::{self, Event};
use crate::failure::Failure;
use crate::signals::Stopped;
use crate::{progress, sys};

/// Whether stdout's reader has gone.
static BROKEN: AtomicBool = AtomicBool::new(false);

/// Stdout, remembering when its reader goes: `opengcs … | head` must end without a complaint.
pub(crate) struct Output<W>(W);

/// Stdout, for text.
pub(crate) fn stdout() -> Output<io::Stdout> {
    Output(io::stdout())
}

/// How long a write waits for a slow reader before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Stdout, for a stream of bytes: without the buffer that looks for line ends. A write ends with an
/// error when the process is told to stop, though nobody reads.
pub(crate) struct Data {
    file: File,
    stop: Arc<AtomicBool>,
}

/// Stdout, for a stream of bytes.
pub(crate) fn data(stop: Arc<AtomicBool>) -> Result<Output<Data>> {
    let file = sys::stdout().context("cannot write to stdout")?;
    Ok(Output(Data { file, stop }))
}

/// A device or a pipe that the user named, for a stream of bytes. A pipe's reader is waited for, until the
/// process is told to stop.
pub(crate) fn data_to(path: &Path, stop: Arc<AtomicBool>) -> Result<Data> {
    while !stop.load(Ordering::Acquire) {
        let opened =
            sys::open_to_write(path).with_context(|| format!("cannot open {}", path.display()))?;
        if let Some(file) = opened {
            return Ok(Data { file, stop });
        }
        std::thread::sleep(LOOK);
    }
    Err(Stopped.into())
}

/// Whether it is there, and is a device or a pipe: that takes bytes, and has no name to be given at the end.
pub(crate) fn takes_bytes(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

impl Write for Data {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.stop.load(Ordering::Acquire) {
                return Err(io::Error::other(Stopped));
            }
            match self.file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sys::wait_writable(&self.file, LOOK)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Bytes would only harm a terminal.
pub(crate) fn refuse_terminal(what: &str) -> Result<()> {
    if io::stdout().is_terminal() {
        return Err(
            Failure::usage(format!("stdout is a terminal, where {what} is of no use"))
                .hint("write to a file with -o FILE, or pipe it to another program")
                .into(),
        );
    }
    Ok(())
}

/// A conversion was not told where its result goes; `example` is a name for it.
pub(crate) fn missing(example: &str) -> Failure {
    let failure = Failure::usage("where to write is missing: -o FILE");
    if io::stdout().is_terminal() {
        failure.hint(format!("give a file, as in -o {example}"))
    } else {
        failure.hint(format!("-o - writes to stdout, -o {example} to a file"))
    }
}

/// A conversion must not take the place of what it reads.
pub(crate) fn refuse_same(input: &Path, output: &Path) -> Result<()> {
    if let (Ok(from), Ok(to)) = (input.canonicalize(), output.canonicalize())
        && from == to
    {
        return Err(
            Failure::usage(format!("{} would be written over itself", input.display())).into(),
        );
    }
    Ok(())
}

/// Whether stdout's reader has gone.
pub(crate) fn is_broken() -> bool {
    BROKEN.load(Ordering::Acquire)
}

/// Remembers whether this failure to write to stdout means that its reader has gone.
pub(crate) fn notice(error: &io::Error) {
    if error.kind() == io::ErrorKind::BrokenPipe {
        BROKEN.store(true, Ordering::Release);
    }
}

fn noticed<T>(result: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &result {
        notice(error);
    }
    result
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        noticed(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        noticed(self.0.flush())
    }
}

/// Prints text as a result; its colours go where none are wanted.
pub(crate) fn print(text: fmt::Arguments<'_>) -> Result<()> {
    let mut out = Output(anstream::stdout());
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

/// Prints a value as JSON, for people too.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    print(format_args!("{text}"))
}

/// Prints a line for the eyes of whoever started the program; when nobody sees it, so be it.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    if events::on() {
        let message = &text.to_string();
        Event::Note { message }.tell();
    } else {
        line(text);
    }
}

/// Warns of something, of a path in a tar or disk where it concerns one.
pub(crate) fn warn(path: Option<&str>, message: &str) {
    if events::on() {
        Event::Warning { path, message }.tell();
        return;
    }
    let path = path.map(|path| format!("{path}: ")).unwrap_or_default();
    let word = paint(YELLOW, "warning:");
    line(format_args!("opengcs: {word} {path}{message}"));
}

/// Prints a line on stderr, beside a line that changes; its colours go where none are wanted.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    progress::aside(|| {
        let _ = writeln!(anstream::stderr(), "{text}");
    });
}

/// What goes wrong.
pub(crate) const RED: &str = "31";
/// What works.
pub(crate) const GREEN: &str = "32";
/// What may surprise.
pub(crate) const YELLOW: &str = "33";
/// What can be done.
pub(crate) const CYAN: &str = "36";

/// Text in a colour, which [`anstream`] takes out again where none are wanted.
pub(crate) fn paint(colour: &str, text: &str) -> String {
    format!("\x1b[{colour}m{text}\x1b[0m")
}

/// Whether stderr shows colours: a terminal or `CLICOLOR_FORCE`, and no `NO_COLOR`.
pub(crate) fn stderr_colours() -> bool {
    !matches!(
        anstream::AutoStream::choice(&io::stderr()),
        anstream::ColorChoice::Never
    )
}
