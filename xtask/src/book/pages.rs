//! Pages of Markdown: which there are, their headings, and what is text in them rather than code.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run;

/// Pages at the repository's root that are held to the same rules.
const AT_ROOT: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
];

/// A file of Markdown.
pub(super) struct Page {
    /// From the repository's root.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Page {
    /// Numbered lines (from 1) outside of fenced code.
    pub(super) fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fence: Option<&str> = None;
        self.text.lines().enumerate().filter_map(move |(at, line)| {
            let trimmed = line.trim_start();
            let mark = ["```", "~~~"].into_iter().find(|m| trimmed.starts_with(m));
            match (fence, mark) {
                (None, Some(mark)) => {
                    fence = Some(mark);
                    None
                }
                (Some(open), Some(mark)) if open == mark => {
                    fence = None;
                    None
                }
                (Some(_), _) => None,
                (None, None) => Some((at + 1, line)),
            }
        })
    }

    /// What can stand behind `#` in a link to this page.
    pub(super) fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        for (_, line) in self.prose() {
            let Some(heading) = line.strip_prefix('#') else {
                continue;
            };
            let anchor = anchor(heading.trim_start_matches('#').trim());
            let same = anchors.iter().filter(|other| **other == anchor).count();
            anchors.push(match same {
                0 => anchor,
                count => format!("{anchor}-{count}"),
            });
        }
        anchors
    }
}

/// A heading as mdbook and forges make an anchor of it.
fn anchor(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|c| match c {
            c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c.to_ascii_lowercase()),
            c if c.is_whitespace() => Some('-'),
            _ => None,
        })
        .collect()
}

/// Every page, those of `docs/` and those at the root.
pub(super) fn all() -> Result<Vec<Page>> {
    let mut paths: Vec<PathBuf> = AT_ROOT.iter().map(PathBuf::from).collect();
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        let at = run::root().join(&folder);
        let entries = fs::read_dir(&at).with_context(|| format!("cannot list {at:?}"))?;
        for entry in entries {
            let path = folder.join(entry?.file_name());
            if run::root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths.into_iter().map(|path| read(&path)).collect()
}

/// One page, by its path from the root.
pub(super) fn read(path: &Path) -> Result<Page> {
    let text = fs::read_to_string(run::root().join(path))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Page {
        path: path.to_owned(),
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_become_anchors_and_code_does_not() {
        let page = Page {
            path: "x.md".into(),
            text: "# A `b` c?\n```\n# not one\n```\n## Same\n## Same\n".into(),
        };
        assert_eq!(page.anchors(), ["a-b-c", "same", "same-1"]);
    }
}
