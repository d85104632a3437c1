//! Runs the examples, and the judges, which are programs of Linux.

#[cfg(windows)]
#[path = "../../../../xtask/windows/judge.rs"]
mod linux;
#[cfg(windows)]
#[path = "../../../../xtask/windows/program.rs"]
mod program;

use std::ffi::OsStr;
use std::process::{Command, Output};

#[cfg(windows)]
pub(crate) fn run(command: &mut Command) -> std::io::Result<Output> {
    program::output(command, std::process::Stdio::null())
}

#[cfg(not(windows))]
pub(crate) fn run(command: &mut Command) -> std::io::Result<Output> {
    command.output()
}

#[cfg(windows)]
pub(crate) fn judge(program: &str, arguments: &[&OsStr]) -> std::io::Result<Output> {
    linux::output(program, arguments)
}

#[cfg(not(windows))]
pub(crate) fn judge(program: &str, arguments: &[&OsStr]) -> std::io::Result<Output> {
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output()
}
