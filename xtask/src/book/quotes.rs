//! Whether the messages that the book explains are still in the programs, or in what they print.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Page, sessions};
use crate::run;

/// The page with them: each is a heading in code, `…` standing for what differs.
const PAGE: &str = "docs/troubleshooting.md";

/// The least that tells one message from another: letters in all of its pieces.
const SHORTEST: usize = 14;

/// Messages that no source file and no pasted output has, one line each.
pub(super) fn gone(pages: &[Page]) -> Result<Vec<String>> {
    let Some(page) = pages.iter().find(|page| page.path == Path::new(PAGE)) else {
        return Ok(vec![format!("{PAGE} is missing")]);
    };
    let mut sources = Vec::new();
    read(&run::root().join("crates"), &mut sources)?;
    // What the page shows was really printed, and is printed again by `cargo xtask book`.
    let shown = sessions::all(page)?;
    sources.extend(shown.into_iter().map(|shown| shown.output));
    Ok(page
        .prose()
        .filter_map(|(line, text)| Some((line, message(text)?)))
        .filter(|(_, message)| !sources.iter().any(|source| says(source, message)))
        .map(|(line, message)| format!("{PAGE}:{line}: nothing says `{message}`"))
        .collect())
}

/// The message in a heading that is one.
fn message(line: &str) -> Option<&str> {
    line.strip_prefix("### `")?.strip_suffix('`')
}

/// Whether a source has all the pieces of a message, in one file and in their order.
fn says(source: &str, message: &str) -> bool {
    let pieces: Vec<&str> = message
        .split('…')
        .map(str::trim)
        .filter(|piece| piece.len() > 3)
        .collect();
    if pieces.iter().map(|piece| piece.len()).sum::<usize>() < SHORTEST {
        return false;
    }
    // A file may say the first piece elsewhere too: each place is tried.
    let first = pieces.first().copied().unwrap_or_default();
    source.match_indices(first).any(|(at, _)| {
        let mut rest = &source[at..];
        // What belongs together stands together.
        let end = rest
            .char_indices()
            .nth(1000)
            .map_or(rest.len(), |(end, _)| end);
        rest = &rest[..end];
        pieces.iter().all(|piece| match rest.split_once(piece) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    })
}

/// Adds the sources below a folder, as they read when their strings are put together.
fn read(folder: &Path, sources: &mut Vec<String>) -> Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "tests" && name != "examples" {
            read(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {path:?}"))?;
            sources.push(joined(&text));
        }
    }
    Ok(())
}

/// A source with its strings on one line each: `\` before a line's end swallows the blanks after it.
fn joined(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut lines = source.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        match line.strip_suffix("\\\n") {
            Some(start) => {
                text.push_str(start);
                while let Some(next) = lines.peek_mut() {
                    *next = next.trim_start();
                    if !next.is_empty() {
                        break;
                    }
                    lines.next();
                }
            }
            None => text.push_str(line),
        }
    }
    text.replace("\\\"", "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_across_the_lines_of_its_string() {
        let source =
            joined("bail!(\"there is no \\\n        fuzz target {unknown}; there are: {}\");");
        assert!(says(&source, "there is no fuzz target …; there are: …"));
        assert!(!says(&source, "there are: … there is no fuzz target"));
        assert!(!says(&source, "there is no fuzz aim …"));
        assert!(!says(&source, "fuzz … are"), "too little to know it by");
    }

    #[test]
    fn only_headings_in_code_are_messages() {
        assert_eq!(message("### `no such …`"), Some("no such …"));
        assert_eq!(message("### Kernel"), None);
    }
}
