//! `opengcs man`: the manual's pages.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Command, CommandFactory as _};
use clap_mangen::roff::{Roff, bold, roman};

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output;

/// Print a manual page, or write all of them to a folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  opengcs man | man -l -
  opengcs man tar2vhd | man -l -
  opengcs man --folder ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// The command whose page is printed, such as tar2vhd; opengcs itself if not given
    #[arg(value_name = "COMMAND", conflicts_with = "folder")]
    words: Vec<String>,
    /// Write opengcs.1, opengcs-tar2vhd.1 and so on to this folder, which exists
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(&self) -> Result<u8> {
        let mut whole = without_help(Arguments::command());
        whole.build();
        if let Some(folder) = &self.folder {
            write_all(&whole, folder)
                .with_context(|| format!("cannot write to {}", folder.display()))?;
            return Ok(0);
        }
        let mut command = &whole;
        for word in &self.words {
            command = command.find_subcommand(word).ok_or_else(|| {
                Failure::usage(format!("there is no command {:?}", self.words.join(" ")))
                    .hint("`opengcs --help` lists them")
            })?;
        }
        let text = page(command).context("cannot write the page")?;
        let mut out = output::stdout();
        out.write_all(&text)
            .and_then(|()| out.flush())
            .context("cannot write to stdout")?;
        Ok(0)
    }
}

/// The command without `help`, which has no page: it is the same as `--help`.
fn without_help(command: Command) -> Command {
    command
        .disable_help_subcommand(true)
        .mut_subcommands(without_help)
}

fn write_all(command: &Command, folder: &Path) -> io::Result<()> {
    for below in command
        .get_subcommands()
        .filter(|found| !found.is_hide_set())
    {
        write_all(below, folder)?;
    }
    std::fs::write(folder.join(format!("{}.1", title(command))), page(command)?)
}

/// What the page is found by: `opengcs-vm-start`.
fn title(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let man = clap_mangen::Man::new(command.clone())
        .source(concat!("opengcs ", env!("CARGO_PKG_VERSION")))
        .manual("opengcs");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis(command).to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let more = command.get_after_help().map(ToString::to_string);
    for (heading, lines) in sections(&more.unwrap_or_default()) {
        section(heading, &lines).to_writer(&mut text)?;
    }
    if command.get_name() != "opengcs" {
        let mut see = Roff::new();
        see.control("SH", ["SEE ALSO"]);
        see.text([bold("opengcs"), roman("(1)")]);
        see.to_writer(&mut text)?;
    }
    Ok(text)
}

/// How it is called, as its help says it.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").replace('\n', " ");
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text(match usage.strip_prefix(name) {
        Some(rest) => vec![bold(name), roman(rest)],
        None => vec![roman(usage)],
    });
    roff
}

/// Headings, in the order in which manuals have them, and how what stands below each begins in the help.
const HEADINGS: [(&str, &str); 5] = [
    ("EXIT STATUS", "Exit codes:"),
    ("ENVIRONMENT", "Environment:"),
    ("NOTES", ""),
    ("JSON", "JSON:"),
    ("EXAMPLES", "Examples:"),
];

/// The end of a command's help, by headings.
fn sections(help: &str) -> Vec<(&'static str, Vec<&str>)> {
    let mut found = HEADINGS.map(|(heading, _)| (heading, Vec::new()));
    for paragraph in help.split("\n\n") {
        // What is indented goes on with the examples before it.
        let begins = match paragraph.starts_with("  ") {
            true => "Examples:",
            false => paragraph,
        };
        let place = HEADINGS
            .iter()
            .position(|(_, words)| !words.is_empty() && begins.starts_with(words))
            .unwrap_or(2);
        let Some(((_, lines), (_, words))) = found.get_mut(place).zip(HEADINGS.get(place)) else {
            continue;
        };
        let rest = paragraph.strip_prefix(words).unwrap_or(paragraph);
        if !lines.is_empty() {
            lines.push("");
        }
        lines.extend(rest.trim_start_matches(['\n', ' ']).lines());
    }
    found
        .into_iter()
        .filter(|(_, lines)| !lines.is_empty())
        .collect()
}

/// Text is filled; examples and tables stay as they are.
fn section(heading: &str, lines: &[&str]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    let as_it_is = heading == "EXAMPLES" || lines.iter().skip(1).any(|line| line.starts_with("  "));
    if as_it_is {
        roff.control("nf", []);
    }
    for line in lines {
        match line.trim() {
            "" => roff.control("PP", []),
            _ => roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]),
        };
    }
    if as_it_is {
        roff.control("fi", []);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_get_their_headings() {
        let help = "Examples:\n  a\n  b\n\nSizes are bytes.\n\n  c\n\nJSON: {x}";
        assert_eq!(
            sections(help),
            [
                ("NOTES", vec!["Sizes are bytes."]),
                ("JSON", vec!["{x}"]),
                ("EXAMPLES", vec!["a", "  b", "", "c"]),
            ]
        );
        assert!(sections("").is_empty());
    }
}
