//! How results reach stdout and notes reach stderr, and what happens when nobody reads them.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::failure::Failure;
use crate::sys;

/// Whether stdout's reader has gone.
static BROKEN: AtomicBool = AtomicBool::new(false);

/// Stdout, remembering when its reader goes: `opengcs … | head` must end without a complaint.
#[derive(Debug)]
pub(crate) struct Output<W>(W);

/// Stdout, for text.
pub(crate) fn stdout() -> Output<io::Stdout> {
    Output(io::stdout())
}

/// Stdout, for a stream of bytes: without the buffer that looks for line ends.
pub(crate) fn data() -> Result<Output<File>> {
    Ok(Output(sys::stdout().context("cannot write to stdout")?))
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

/// A conversion's result cannot go where its data goes.
pub(crate) fn json_beside_data() -> Failure {
    Failure::usage("--json and the data cannot both go to stdout")
        .hint("write the data to a file with -o FILE")
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

/// Prints text as a result.
pub(crate) fn print(text: fmt::Arguments<'_>) -> Result<()> {
    let mut out = stdout();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    print(format_args!("{text}"))
}

/// Prints a line for the eyes of whoever started the program; when nobody sees it, so be it.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Whether stderr shows colours: a terminal, and no wish to the contrary.
pub(crate) fn stderr_colours() -> bool {
    !matches!(
        anstream::AutoStream::choice(&io::stderr()),
        anstream::ColorChoice::Never
    )
}

/// Whether stdout shows colours.
pub(crate) fn stdout_colours() -> bool {
    !matches!(
        anstream::AutoStream::choice(&io::stdout()),
        anstream::ColorChoice::Never
    )
}
