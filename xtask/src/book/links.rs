//! Whether every link leads somewhere: to a page, a heading of it, or a file of the repository.

use std::path::{Component, Path, PathBuf};

use super::Page;
use crate::run;

/// The list of chapters.
pub(super) const SUMMARY: &str = "docs/SUMMARY.md";
/// Pages that get into the book by themselves.
pub(super) const DECISIONS: &str = "docs/decisions";

/// Links to nowhere, one line each.
pub(super) fn broken(pages: &[Page]) -> Vec<String> {
    let mut wrong = Vec::new();
    for page in pages {
        for (line, target) in targets(page) {
            if let Err(why) = follow(page, &target, pages) {
                wrong.push(format!("{}:{line}: {target}: {why}", page.path.display()));
            }
        }
    }
    wrong
}

/// Pages in `docs/` that no chapter leads to.
pub(super) fn not_in_summary(pages: &[Page]) -> Vec<String> {
    let Some(summary) = pages.iter().find(|page| page.path == Path::new(SUMMARY)) else {
        return vec![format!("{SUMMARY} is missing")];
    };
    let listed: Vec<PathBuf> = targets(summary)
        .map(|(_, target)| Path::new("docs").join(target))
        .collect();
    pages
        .iter()
        .map(|page| &page.path)
        .filter(|path| path.starts_with("docs") && !path.starts_with(DECISIONS))
        .filter(|path| *path != Path::new(SUMMARY) && !listed.contains(path))
        .map(|path| format!("{} is in no chapter of {SUMMARY}", path.display()))
        .collect()
}

fn follow(page: &Page, target: &str, pages: &[Page]) -> Result<(), String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() {
        page.path.clone()
    } else {
        resolve(&page.path, path).ok_or("leads out of the repository")?
    };
    if !run::root().join(&path).exists() {
        return Err("no such file".into());
    }
    let Some(page) = pages.iter().find(|page| page.path == path) else {
        return Ok(());
    };
    if anchor.is_empty() || page.anchors().iter().any(|known| known == anchor) {
        return Ok(());
    }
    Err(format!("{} has no such heading", path.display()))
}

/// Where a relative link leads, from the repository's root.
pub(super) fn resolve(page: &Path, link: &str) -> Option<PathBuf> {
    let mut path = page.parent()?.to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// The links of a page that lead to files, with their lines.
fn targets(page: &Page) -> impl Iterator<Item = (usize, String)> + '_ {
    page.prose().flat_map(|(line, text)| {
        links(text)
            .into_iter()
            .map(move |(_, range)| (line, text[range].to_owned()))
    })
}

/// The links in a line of text that lead to files: what stands in brackets, and where in the line the
/// target stands.
pub(super) fn links(line: &str) -> Vec<(String, std::ops::Range<usize>)> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut in_code = false;
    let mut open = Vec::new();
    let bytes = line.as_bytes();
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'`' => in_code = !in_code,
            b'[' if !in_code => open.push(at),
            b']' if !in_code => {
                let start = open.pop();
                if let (Some(start), Some(b'(')) = (start, bytes.get(at + 1))
                    && let Some(length) = line[at + 2..].find(')')
                {
                    let target = at + 2..at + 2 + length;
                    let text = &line[target.clone()];
                    if !text.contains("://") && !text.starts_with("mailto:") {
                        found.push((line[start + 1..at].to_owned(), target.clone()));
                    }
                    at = target.end;
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str, text: &str) -> Page {
        Page {
            path: path.into(),
            text: text.into(),
        }
    }

    #[test]
    fn links_to_nowhere_are_told_with_their_line() {
        let pages = [
            page(
                "docs/a.md",
                "# A\n[b](b.md#there) [`x`](b.md#gone) `[no](link)`\n[root](../Cargo.toml) \
                 [out](../../x) [web](https://a.example/b)\n[none](none.md)",
            ),
            page("docs/b.md", "## There"),
        ];
        // The pages of this test are not on the disk; what they lead to is.
        let wrong = broken(&pages);
        assert!(
            wrong.iter().all(|line| line.starts_with("docs/a.md:")),
            "{wrong:?}"
        );
        assert!(
            wrong.iter().any(|line| line.contains("../../x: leads out")),
            "{wrong:?}"
        );
        assert!(
            wrong
                .iter()
                .any(|line| line.starts_with("docs/a.md:4: none.md")),
            "{wrong:?}"
        );
        assert!(
            !wrong.iter().any(|line| line.contains("Cargo.toml")),
            "{wrong:?}"
        );
        assert!(!wrong.iter().any(|line| line.contains("link")), "{wrong:?}");
    }

    #[test]
    fn headings_are_looked_for_in_the_page_that_is_meant() {
        let pages = [
            page(
                "README.md",
                "# Here\n[a](#here) [b](#nowhere) [c](ARCHITECTURE.md#gone)",
            ),
            page("ARCHITECTURE.md", "# Map"),
        ];
        let wrong = broken(&pages);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(
            wrong[0].contains("#nowhere: README.md has no such heading"),
            "{wrong:?}"
        );
    }
}
