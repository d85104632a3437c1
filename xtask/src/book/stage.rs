//! The book's source as mdbook takes it: `docs/`, what is made from the programs, and no link that leads out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::links::{self, DECISIONS, SUMMARY};
use super::pages;
use crate::run;

/// Copies and makes all pages; returns the folder.
pub(super) fn stage(opengcs: &Path) -> Result<PathBuf> {
    let staged = run::target_dir().join("book-src");
    if staged.exists() {
        fs::remove_dir_all(&staged).with_context(|| format!("cannot empty {staged:?}"))?;
    }
    copy(&run::root().join("docs"), &staged)?;
    let mut decisions = Vec::new();
    for page in pages::all()? {
        let Ok(inside) = page.path.strip_prefix("docs") else {
            continue;
        };
        if page.path.starts_with(DECISIONS) {
            let title = page.text.lines().next().unwrap_or_default();
            let title = title.trim_start_matches('#').trim().to_owned();
            decisions.push((title, inside.display().to_string()));
        }
        let text = page
            .text
            .lines()
            .map(|line| within_the_book(&page.path, line));
        let text: Vec<String> = text.collect();
        fs::write(staged.join(inside), text.join("\n") + "\n")?;
    }
    fs::write(staged.join("commands.md"), commands(opengcs)?)?;
    let list: String = decisions
        .iter()
        .map(|(title, path)| format!("- [{title}]({path})\n"))
        .collect();
    let intro = "# Decisions\n\nChoices that somebody could reasonably have taken otherwise, and why they were \
                 taken as they are.\n\n";
    fs::write(staged.join("decisions.md"), format!("{intro}{list}"))?;
    let summary = fs::read_to_string(run::root().join(SUMMARY))?;
    let nested = list.replace("- [", "  - [");
    let summary = format!("{summary}\n- [Decisions](decisions.md)\n{nested}").replace(
        "(command-line.md)\n",
        "(command-line.md)\n  - [Every command](commands.md)\n",
    );
    fs::write(staged.join("SUMMARY.md"), summary)?;
    Ok(staged)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {to:?}"))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {from:?}"))? {
        let path = entry?.path();
        let to = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &to)?;
        } else {
            fs::copy(&path, &to).with_context(|| format!("cannot copy {path:?}"))?;
        }
    }
    Ok(())
}

/// A line whose links to files outside of the book are plain text, and whose includes are found.
fn within_the_book(page: &Path, line: &str) -> String {
    if let Some(file) = line
        .strip_prefix("{{#include ")
        .and_then(|rest| rest.strip_suffix("}}"))
        && let Some(path) = links::resolve(page, file)
    {
        return format!("{{{{#include {}}}}}", run::root().join(path).display());
    }
    let mut text = line.to_owned();
    for (words, target) in links::links(line).into_iter().rev() {
        let path = line[target.clone()].split('#').next().unwrap_or_default();
        let inside = path.is_empty()
            || links::resolve(page, path)
                .is_some_and(|path| path.starts_with("docs") && path.extension().is_some());
        // From the bracket that opens to the parenthesis that closes.
        let start = target.start - 3 - words.len();
        if !inside && line[start..].starts_with('[') {
            text.replace_range(start..=target.end, &words);
        }
    }
    text
}

/// A page with the help of every command.
fn commands(opengcs: &Path) -> Result<String> {
    let mut text = String::from(
        "# Every command\n\nWhat `--help` prints, command by command. `opengcs man` prints the same as pages of \
         the manual.\n",
    );
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(words) = waiting.pop() {
        let mut help = Command::new(opengcs);
        help.args(&words).arg("--help").env("COLUMNS", "100");
        let help = run::output(&mut help)?;
        let name = [&["opengcs".to_owned()], words.as_slice()]
            .concat()
            .join(" ");
        text.push_str(&format!(
            "\n## {name}\n\n```text\n{}\n```\n",
            help.trim_end()
        ));
        for command in subcommands(&help).into_iter().rev() {
            waiting.push([words.as_slice(), &[command]].concat());
        }
    }
    Ok(text)
}

/// The names in the list that a help prints, but for `help` itself.
pub(super) fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_out_become_text() {
        let page = Path::new("docs/a.md");
        assert_eq!(
            within_the_book(
                page,
                "see [the map](../ARCHITECTURE.md), [b](b.md#x) and [all](decisions/)"
            ),
            "see the map, [b](b.md#x) and all"
        );
        let include = within_the_book(page, "{{#include ../Cargo.toml}}");
        assert!(include.starts_with("{{#include /"), "{include}");
    }

    #[test]
    fn the_list_of_commands_ends_with_its_paragraph() {
        let help = "Usage: x\n\nCommands:\n  tar2vhd  Turn\n             more\n  run      Run\n  help     Print\n\nOptions:\n  -h\n";
        assert_eq!(subcommands(help), ["tar2vhd", "run"]);
    }
}
