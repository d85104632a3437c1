//! How a failure is told: one line, perhaps a hint, and an exit code.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

use anyhow::Result;

use crate::context::Context;
use crate::events::{self, Event};
use crate::output::{self, CYAN, RED, paint};
use crate::sys;

/// Something failed.
pub(crate) const FAILED: u8 = 1;
/// The command line makes no sense.
pub(crate) const USAGE: u8 = 2;
/// Whoever read our output has gone: what a shell says of a program that SIGPIPE ended.
const BROKEN_PIPE: u8 = 141;

/// A failure that the command itself found, with what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    hint: Option<String>,
    code: Option<u8>,
}

impl Failure {
    /// A failure that says `what`: lowercase, no full stop.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: None,
            code: None,
        }
    }

    /// A command line that was understood and makes no sense.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self {
            code: Some(USAGE),
            ..Self::new(what)
        }
    }

    /// Says what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Failure {}

/// The exit code that goes with an error, when it is that error's context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Code(pub(crate) u8);

impl fmt::Display for Code {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Tells a failure, and returns the exit code that goes with it. `own` stands for a failure of
/// ours that has no code of its own.
pub(crate) fn exit_code(result: &Result<u8>, context: &Context, own: u8, verbose: bool) -> u8 {
    let error = match result {
        Ok(code) => return *code,
        Err(error) => error,
    };
    if let Some(signal) = context.stop.signal() {
        let code = 128_u8.saturating_add(signal);
        let line = format!("stopped by {}", signal_name(signal));
        Told::line(line).tell(code, false);
        return code;
    }
    if output::is_broken() {
        return BROKEN_PIPE;
    }
    let coded = error.downcast_ref::<Code>().map(|code| code.0);
    let code = coded
        .or_else(|| error.downcast_ref::<Failure>()?.code)
        .unwrap_or(own);
    tell(error, code, verbose);
    code
}

fn signal_name(signal: u8) -> &'static str {
    match signal {
        1 => "a hangup",
        2 => "an interrupt",
        15 => "a request to terminate",
        _ => "a signal",
    }
}

/// Tells a failure on stderr.
pub(crate) fn tell(error: &anyhow::Error, code: u8, verbose: bool) {
    Told::of(error.as_ref()).tell(code, verbose);
}

/// A failure and its causes as they are shown.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    line: String,
    hint: Option<String>,
    detail: Option<String>,
}

impl Told {
    /// A failure without causes.
    fn line(line: String) -> Self {
        Self {
            line,
            ..Self::default()
        }
    }

    fn tell(&self, code: u8, verbose: bool) {
        if events::on() {
            let error = Event::Error {
                message: &self.line,
                hint: self.hint.as_deref(),
                exit_code: code,
                detail: self.detail.as_deref().filter(|_| verbose),
            };
            error.tell();
            return;
        }
        let name = paint(RED, "opengcs:");
        output::line(format_args!("{name} {}", self.line));
        let unseen = self.detail.is_some() && !verbose;
        let hint = self
            .hint
            .as_deref()
            .or_else(|| unseen.then_some("the same with -v shows what the VM said before"));
        if let Some(hint) = hint {
            let word = paint(CYAN, "hint:");
            output::line(format_args!("{word} {hint}"));
        }
        if let Some(detail) = self.detail.as_deref().filter(|_| verbose) {
            output::line(format_args!("{}", detail.trim_end()));
        }
    }

    fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut told = Self::default();
        let mut next = Some(error);
        while let Some(error) = next {
            let (text, hint, detail) = parts(error);
            told.add(&one_line(&text));
            told.hint = told.hint.or(hint).or_else(|| usual_hint(error));
            told.detail = told.detail.or(detail);
            next = error.source();
        }
        told
    }

    /// Adds a cause, unless the line ends with it already: some errors print their source.
    fn add(&mut self, text: &str) {
        if text.is_empty() || self.line.ends_with(text) {
            return;
        }
        if !self.line.is_empty() {
            self.line.push_str(": ");
        }
        self.line.push_str(text);
    }
}

/// What can be done about what systems often say.
fn usual_hint(error: &(dyn StdError + 'static)) -> Option<String> {
    const ROOM: &str = "make room on that disk, or write to another";
    if let Some(error) = error.downcast_ref::<opengcs::layer::Error>() {
        // The image being full is told by what to give it; this is the disk that it lies on.
        let full = error.kind() == opengcs::layer::ErrorKind::NoSpace;
        let of_host = ["disk is full", "quota"]
            .iter()
            .any(|words| error.to_string().contains(words));
        if full && of_host {
            return Some(ROOM.to_owned());
        }
        let folder = error
            .path()
            .filter(|_| error.kind() == opengcs::layer::ErrorKind::NotFound)
            .filter(|_| error.to_string().ends_with("cannot create"))
            .and_then(Path::parent)
            .filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        return folder.map(|folder| format!("make the folder first: {}", sys::make_folder(folder)));
    }
    let hint = match error.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::PermissionDenied => sys::LOOK_AT_RIGHTS,
        io::ErrorKind::ReadOnlyFilesystem => "write to a folder on a disk that can be written to",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ROOM,
        _ => return None,
    };
    Some(hint.to_owned())
}

/// What one error of a chain says, without its hint.
fn parts(error: &(dyn StdError + 'static)) -> (String, Option<String>, Option<String>) {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return (failure.what.clone(), failure.hint.clone(), None);
    }
    if let Some(error) = error.downcast_ref::<opengcs::Error>() {
        let text = error.to_string();
        let hint = error.advice().map(str::to_owned);
        // The library's line ends with its advice in parentheses; here it has a line of its own.
        let text = hint
            .as_ref()
            .and_then(|hint| text.strip_suffix(&format!(" ({hint})")))
            .unwrap_or(&text)
            .to_owned();
        return (text, hint, error.detail().map(str::to_owned));
    }
    if let Some(error) = error.downcast_ref::<opengcs_monitor::Error>() {
        let hint = error.advice().map(str::to_owned);
        return (error.to_string(), hint, error.detail().map(str::to_owned));
    }
    if let Some(error) = error.downcast_ref::<opengcs::layer::Error>() {
        let text = system_text(&error.to_string());
        return (text, error.advice().map(str::to_owned), None);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        if let Some(inner) = error.get_ref() {
            return parts(inner);
        }
        if let Some(words) = sys::words(error) {
            return (words.to_owned(), None, None);
        }
    }
    (system_text(&error.to_string()), None, None)
}

/// "No such file or directory (os error 2)" as people say it.
fn system_text(text: &str) -> String {
    let Some((said, _number)) = text
        .strip_suffix(')')
        .and_then(|text| text.rsplit_once(" (os error "))
    else {
        return text.to_owned();
    };
    // Those of Windows are sentences.
    let mut letters = said.trim_end_matches('.').chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => text.to_owned(),
    }
}

/// Foreign text may have line ends and control characters.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for (number, part) in text
        .lines()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .enumerate()
    {
        if number > 0 {
            line.push_str("; ");
        }
        line.extend(part.chars().map(|c| if c.is_control() { '?' } else { c }));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_joined_once() {
        let system = io::Error::from_raw_os_error(2);
        let error = anyhow::Error::new(system).context("cannot open /x");
        let line = Told::of(error.as_ref()).line;
        assert_eq!(line, "cannot open /x: no such file or directory");
        let inner = io::Error::other(Failure::new("it is torn").hint("mend it"));
        let error = anyhow::Error::new(inner).context("cannot read: it is torn");
        let told = Told::of(error.as_ref());
        assert_eq!(told.line, "cannot read: it is torn");
        assert_eq!(told.hint.as_deref(), Some("mend it"));
    }

    #[test]
    fn line_is_one_line() {
        assert_eq!(one_line("a\n\n  b\x1b[0m\n"), "a; b?[0m");
    }
}
