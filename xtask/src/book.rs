//! The book in `docs/`: what it links to, quotes and shows is held against the repository, then it is built.
//!
//! ```text
//! docs/*.md ─┬─► links and anchors, quoted messages, the picture      quick, in `cargo xtask check` too
//!            ├─► commands shown: run again, their output compared     `--update` pastes what is new
//!            └─► target/book-src (and pages made from it) ──► mdbook ──► target/book
//! ```

mod links;
mod pages;
mod picture;
mod quotes;
mod sessions;
mod stage;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{guest, run};
use pages::Page;

/// The program that makes HTML of it. Pinned, because its configuration changes between versions.
const MDBOOK: &str = "0.5.4";

/// The chapter that lists the commands.
const COMMAND_LINE: &str = "docs/command-line.md";

/// What `cargo xtask book` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Paste the output that the commands have today, and draw the picture again.
    #[arg(long)]
    update: bool,
    /// Only hold the book against the repository; build no HTML.
    #[arg(long)]
    check: bool,
}

/// Checks the book and builds it; fails on links to nowhere and on output that is no longer true.
pub(crate) fn run(options: &Options) -> Result<()> {
    let programs = guest::programs()?;
    let mut wrong = Vec::new();
    let stale = sessions::run(&programs, options.update)?;
    if !stale.is_empty() {
        let what =
            "these commands print something else today (`cargo xtask book --update` pastes it)";
        wrong.push(format!("{what}:\n\n{}", stale.join("\n\n")));
    }
    if options.update {
        picture::redraw()?;
    }
    for result in [checks(), commands_are_listed(&programs.opengcs)] {
        wrong.extend(result.err().map(|error| format!("{error:#}")));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    if options.check {
        return Ok(());
    }
    let mdbook = ensure_mdbook()?;
    let source = stage::stage(&programs.opengcs)?;
    let built = run::target_dir().join("book");
    run::run(
        Command::new(mdbook)
            .arg("build")
            .arg(&source)
            .arg("--dest-dir")
            .arg(&built),
    )?;
    println!("the book: {}", built.join("index.html").display());
    Ok(())
}

/// What needs no program to be run: links, anchors, quotes, the picture.
pub(crate) fn checks() -> Result<()> {
    let pages = pages::all()?;
    let mut wrong = links::broken(&pages);
    wrong.extend(links::not_in_summary(&pages));
    wrong.extend(quotes::gone(&pages)?);
    wrong.extend(picture::stale(&pages)?);
    if wrong.is_empty() {
        println!(
            "book: {} pages, their links and quotes are true",
            pages.len()
        );
        return Ok(());
    }
    bail!("book:\n  {}", wrong.join("\n  "))
}

/// Every command has its line in the chapter on the command line, and no line is of one that has gone.
fn commands_are_listed(opengcs: &Path) -> Result<()> {
    let page = pages::read(Path::new(COMMAND_LINE))?;
    let mut listed: Vec<&str> = page
        .prose()
        .filter_map(|(_, line)| line.strip_prefix("| `opengcs ")?.split('`').next())
        .collect();
    let help = run::output(Command::new(opengcs).arg("--help"))?;
    let mut commands = stage::subcommands(&help);
    listed.sort_unstable();
    commands.sort_unstable();
    if listed == commands {
        return Ok(());
    }
    bail!(
        "{COMMAND_LINE} lists {}, and the commands are {}",
        listed.join(" "),
        commands.join(" ")
    )
}

/// mdbook: ours in the target folder, else the machine's, else it is compiled once.
fn ensure_mdbook() -> Result<PathBuf> {
    let root = run::target_dir().join("mdbook");
    let ours = root.join("bin/mdbook");
    if ours.is_file() {
        return Ok(ours);
    }
    if run::installed("mdbook") {
        return Ok("mdbook".into());
    }
    println!("mdbook is not there: compiling it into {}", root.display());
    let build = root.join("build");
    let mut install = run::cargo();
    install.args(["install", "--locked", "--debug", "mdbook", "--version"]);
    install.args([MDBOOK, "--no-default-features", "--features", "search"]);
    install.arg("--root").arg(&root);
    install.arg("--target-dir").arg(&build);
    let installed = run::run(&mut install);
    // Half a GiB that nobody needs again.
    let _ = std::fs::remove_dir_all(&build);
    installed.context(
        "the book's content is checked and true; its HTML takes mdbook, which is neither installed nor to \
         be had from crates.io: install it where there is a network, `cargo install --locked mdbook`",
    )?;
    Ok(ours)
}
