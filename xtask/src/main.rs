//! Every habit of a developer here is one `cargo xtask …`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer tool talks to its terminal"
)]

mod bench;
mod book;
mod check;
mod demo;
mod dist;
mod fuzz;
mod guest;
mod host;
mod run;
mod soak;
mod test;
mod tidy;
mod windows;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer tasks of opengcs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the main job from end to end: a real layer, a real VM, and back.
    Demo,
    /// Run every test, those that boot VMs included, and install what they need.
    Test(test::Options),
    /// Formatting, clippy, documentation and the house rules.
    Check(check::Options),
    /// Only the house rules: crates on their floors, files of a readable size.
    Tidy,
    /// Measure against the outside world; prints a table and writes it as JSON.
    Bench(bench::Options),
    /// Fuzz each parser for some seconds.
    Fuzz(fuzz::Options),
    /// Add and remove disks, thousands of times, and fail when anything grows.
    Soak(soak::Options),
    /// Hold the book in `docs/` against the repository and what commands print, and build it.
    Book(book::Options),
    /// Make the packages for others: a tarball and a `.deb`, in `target/packages`.
    Dist(dist::Options),
    /// Prepare kernel, agent and initrd in `target/guest`, as `demo` and `test` do.
    Guest,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Demo => demo::run(),
        Task::Test(options) => test::run(&options),
        Task::Check(options) => check::run(&options),
        Task::Tidy => tidy::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Book(options) => book::run(&options),
        Task::Dist(options) => dist::run(&options),
        Task::Guest => guest::prepare().map(drop),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
