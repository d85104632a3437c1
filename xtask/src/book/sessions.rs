//! Commands that the book shows: they are run, and what they print is held against what is pasted.
//!
//! A fenced block of `console` is run when the line before it is a comment `<!-- run … -->`. The commands of a
//! page run in one folder, in their order, by `opengcs` as a package installs it. Words in the comment:
//!
//! - `vm`: they need a guest; without one in `target/guest` they are left out, which is said;
//! - `net`: they need the network; when they fail they are left out, which is said;
//! - `numbers`: numbers may differ, as sizes of a kernel do between releases;
//! - `shape`: only that they succeed is held, for what they print is the machine's own.
//!
//! `<!-- setup: COMMAND -->` is run and not shown.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Page, pages};
use crate::dist::Programs;
use crate::{guest, run};

mod mask;

/// As whom and where the reader is supposed to type.
const SHOWN_HOME: &str = "/home/you";
const SHOWN_RUNTIME: &str = "/run/user/1000";
/// Seconds after which a command is taken to hang.
const LONGEST: &str = "300";

/// One command with what it printed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) command: String,
    pub(super) output: String,
}

/// A part of a page.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Text that is not run, its lines with their ends.
    Text(String),
    /// A command that is run and not shown.
    Setup(String),
    /// A block that is run: the words in its comment, and its commands.
    Block(Vec<String>, Vec<Shown>),
}

/// What came of a run.
#[derive(Default)]
struct Tally {
    commands: usize,
    without_guest: usize,
    without_network: usize,
    stale: Vec<String>,
}

/// Runs what the pages show. Returns what is stale; with `update` pastes it instead.
pub(super) fn run(programs: &Programs, update: bool) -> Result<Vec<String>> {
    let guest = guest::data_dir().join("initrd.img").is_file();
    let mut tally = Tally::default();
    for page in pages::all()? {
        let mut parts = parse(&page.text).with_context(|| page.path.display().to_string())?;
        if !parts.iter().any(|part| matches!(part, Part::Block(..))) {
            continue;
        }
        let place = Place::make(programs, guest)?;
        for part in &mut parts {
            match part {
                Part::Text(_) => {}
                Part::Setup(command) => place.command(command, true).map(drop)?,
                Part::Block(words, shown) if !guest && is(words, "vm") => {
                    tally.without_guest += shown.len();
                }
                Part::Block(words, shown) => {
                    for one in shown {
                        tally.run(&page, &place, words, one, update)?;
                    }
                }
            }
        }
        let text = render(&parts);
        if update && text != page.text {
            fs::write(run::root().join(&page.path), text)?;
            println!("pasted into {}", page.path.display());
        }
    }
    println!("book: {} commands run", tally.commands);
    for (count, lack) in [
        (
            tally.without_guest,
            "a guest (`cargo xtask guest` prepares one)",
        ),
        (tally.without_network, "a network"),
    ] {
        if count > 0 {
            println!("left out: {count} commands that need {lack}");
        }
    }
    Ok(tally.stale)
}

impl Tally {
    fn run(
        &mut self,
        page: &Page,
        place: &Place,
        words: &[String],
        one: &mut Shown,
        update: bool,
    ) -> Result<()> {
        let shape = is(words, "shape");
        let now = match place.command(&one.command, shape || is(words, "net")) {
            Err(error) if is(words, "net") => {
                println!("{error:#}");
                self.without_network += 1;
                return Ok(());
            }
            now => now?,
        };
        self.commands += 1;
        if shape && !update || mask::same(words, &one.output, &now) {
            return Ok(());
        }
        if update {
            one.output = now;
        } else {
            self.stale.push(format!(
                "{}: $ {}\n--- in the book\n{}+++ today\n{now}",
                page.path.display(),
                one.command,
                one.output
            ));
        }
        Ok(())
    }
}

fn is(words: &[String], word: &str) -> bool {
    words.iter().any(|known| known == word)
}

/// The commands of a page.
pub(super) fn all(page: &Page) -> Result<Vec<Shown>> {
    chosen(page, |_| true)
}

/// The commands of blocks whose comment has this word.
pub(super) fn marked(page: &Page, word: &str) -> Result<Vec<Shown>> {
    chosen(page, |words| is(words, word))
}

fn chosen(page: &Page, choice: impl Fn(&[String]) -> bool) -> Result<Vec<Shown>> {
    Ok(parse(&page.text)?
        .into_iter()
        .filter_map(|part| match part {
            Part::Block(words, shown) if choice(&words) => Some(shown),
            _ => None,
        })
        .flatten()
        .collect())
}

/// A folder in which the commands of a page run.
struct Place {
    home: PathBuf,
    runtime: PathBuf,
    programs: PathBuf,
}

impl Place {
    fn make(programs: &Programs, guest: bool) -> Result<Self> {
        let folder = run::target_dir().join("book-run");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {folder:?}"))?;
        }
        let place = Self {
            home: folder.join("home"),
            runtime: folder.join("runtime"),
            programs: folder.join("usr/bin"),
        };
        let agent = folder.join("usr/lib/opengcs");
        let data = place.home.join(".local/share/opengcs");
        for folder in [&place.runtime, &place.programs, &agent, &data] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {folder:?}"))?;
        }
        fs::copy(&programs.opengcs, place.programs.join("opengcs"))?;
        fs::copy(&programs.agent, agent.join("gcs"))?;
        if guest {
            let mut copy = Command::new("cp");
            for name in ["bootx64.efi", "kernel.json", "modules", "initrd.img"] {
                copy.arg(guest::data_dir().join(name));
            }
            run::output(copy.arg("-r").arg(&data))?;
        }
        Ok(place)
    }

    /// Runs a command and returns what it printed, on both of its outputs.
    fn command(&self, command: &str, must_succeed: bool) -> Result<String> {
        eprintln!("$ {command}");
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("timeout")
            .args(["--kill-after=5", LONGEST, "bash", "-c"])
            .arg(format!("exec 2>&1\numask 022\n{command}"))
            .current_dir(&self.home)
            .env_clear()
            .env("HOME", &self.home)
            .env("XDG_RUNTIME_DIR", &self.runtime)
            .env(
                "PATH",
                format!("{}:{path}:/usr/sbin:/sbin", self.programs.display()),
            )
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .output()
            .context("cannot run bash")?;
        let text = String::from_utf8_lossy(&output.stdout)
            .replace(&self.home.display().to_string(), SHOWN_HOME)
            .replace(&self.runtime.display().to_string(), SHOWN_RUNTIME);
        if must_succeed && !output.status.success() || output.status.code() == Some(124) {
            bail!("`{command}` ended with {}:\n{text}", output.status);
        }
        let mut text: String = text
            .lines()
            .map(|line| line.trim_end().to_owned() + "\n")
            .collect();
        if text == "\n" {
            text.clear();
        }
        Ok(text)
    }
}

/// VMs that a page has left, because a command of it failed, end with their place.
impl Drop for Place {
    fn drop(&mut self) {
        let Ok(listed) = self.command("opengcs vm ls --json 2>/dev/null", false) else {
            return;
        };
        let vms: Vec<Named> = serde_json::from_str(&listed).unwrap_or_default();
        for vm in vms {
            let _ = self.command(&format!("opengcs vm stop --time 0 {}", vm.name), false);
        }
    }
}

/// What is read of the list of VMs.
#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Splits a page.
fn parse(text: &str) -> Result<Vec<Part>> {
    let mut parts = vec![Part::Text(String::new())];
    let add = |parts: &mut Vec<Part>, line: &str| match parts.last_mut() {
        Some(Part::Text(text)) => text.push_str(line),
        _ => parts.push(Part::Text(line.to_owned())),
    };
    let mut lines = text.split_inclusive('\n');
    while let Some(line) = lines.next() {
        if let Some(command) = comment(line, "setup:") {
            parts.push(Part::Setup(command.to_owned()));
            continue;
        }
        let Some(words) = comment(line, "run") else {
            add(&mut parts, line);
            continue;
        };
        if lines.next() != Some("```console\n") {
            bail!("`{}` stands before no block of console", line.trim());
        }
        let mut shown: Vec<Shown> = Vec::new();
        let mut closed = false;
        let mut goes_on = false;
        for line in lines.by_ref() {
            if line.trim_end() == "```" {
                closed = true;
                break;
            }
            let command = line.strip_prefix("$ ").map(str::trim_end);
            match (shown.last_mut(), command) {
                (Some(last), _) if goes_on => {
                    last.command.push('\n');
                    last.command.push_str(line.trim_end());
                }
                (_, Some(command)) => shown.push(Shown {
                    command: command.to_owned(),
                    output: String::new(),
                }),
                (Some(last), None) => {
                    last.output.push_str(line);
                    continue;
                }
                (None, None) => bail!("a block begins with `{}` and no `$ `", line.trim()),
            }
            goes_on = line.trim_end().ends_with('\\');
        }
        if !closed {
            bail!("a block that is run has no end");
        }
        let words = words.split_whitespace().map(str::to_owned).collect();
        parts.push(Part::Block(words, shown));
    }
    Ok(parts)
}

fn comment<'a>(line: &'a str, what: &str) -> Option<&'a str> {
    let inside = line.trim_end().strip_prefix("<!-- ")?.strip_suffix("-->")?;
    Some(inside.strip_prefix(what)?.trim())
}

/// Puts a page together again.
fn render(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(lines) => text.push_str(lines),
            Part::Setup(command) => text.push_str(&format!("<!-- setup: {command} -->\n")),
            Part::Block(words, shown) => {
                let words: String = words.iter().map(|word| format!(" {word}")).collect();
                text.push_str(&format!("<!-- run{words} -->\n```console\n"));
                for one in shown {
                    text.push_str(&format!("$ {}\n{}", one.command, one.output));
                }
                text.push_str("```\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n\n<!-- setup: touch x -->\n<!-- run vm numbers -->\n```console\n\
        $ opengcs a \\\n    b\nout 1\n\n$ opengcs c\n```\n\n```console\n$ not run\n```\n";

    #[test]
    fn a_page_comes_back_as_it_was() {
        let parts = parse(PAGE).unwrap();
        assert_eq!(render(&parts), PAGE);
        let Part::Block(words, shown) = &parts[2] else {
            panic!("{parts:?}");
        };
        assert_eq!(words, &["vm", "numbers"]);
        assert_eq!(shown[0].command, "opengcs a \\\n    b");
        assert_eq!(shown[0].output, "out 1\n\n");
        assert_eq!(shown.len(), 2);
    }

    #[test]
    fn a_comment_without_a_block_is_refused() {
        assert!(parse("<!-- run -->\ntext\n").is_err());
        assert!(parse("<!-- run -->\n```console\n$ a\n").is_err());
    }
}
