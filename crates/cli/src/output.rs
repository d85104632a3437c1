//! How results reach stdout and notes reach stderr, and what happens when nobody reads them.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Whether stdout's reader has gone.
static BROKEN: AtomicBool = AtomicBool::new(false);

/// Stdout, remembering when its reader goes: `opengcs … | head` must end without a complaint.
#[derive(Debug)]
pub(crate) struct Output(io::Stdout);

/// Stdout.
pub(crate) fn stdout() -> Output {
    Output(io::stdout())
}

/// Whether stdout's reader has gone.
pub(crate) fn is_broken() -> bool {
    BROKEN.load(Ordering::Acquire)
}

fn noticed<T>(result: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &result
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        BROKEN.store(true, Ordering::Release);
    }
    result
}

impl Write for Output {
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
