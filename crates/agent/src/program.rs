//! Which of its names the program was called by, and what it then does.

use std::{
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{converters, init, serve, shim};

const USAGE: &str = "usage: gcs init | serve [--unix FOLDER] [--runtime PROGRAM] | tar2vhd | vhd2tar | exportSandbox -path FOLDER";

/// Runs what the program was called for.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    let name = Path::new(&called)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let outcome = match name.as_str() {
        // The kernel calls PID 1 by the name `init` and may pass it words of the command line.
        "init" | "linuxrc" => init::run(),
        _ if std::process::id() == 1 => init::run(),
        name => converters::run(name, &rest).unwrap_or_else(|| match rest.split_first() {
            Some((command, rest)) => run(&command.to_string_lossy(), rest),
            None => Err(USAGE.to_owned()),
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // There is nowhere else to tell it.
            let _ = writeln!(std::io::stderr(), "{name}: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, arguments: &[OsString]) -> Result<(), String> {
    match command {
        "init" => Err("init is only run as PID 1".to_owned()),
        "shim" => shim::run(),
        "serve" => {
            let options = serve_options(arguments)?;
            serve::run(options).map_err(|error| error.to_string())
        }
        name => converters::run(name, arguments).unwrap_or_else(|| Err(USAGE.to_owned())),
    }
}

fn serve_options(mut arguments: &[OsString]) -> Result<serve::Options, String> {
    let mut options = serve::Options::default();
    while let Some((flag, rest)) = arguments.split_first() {
        let (value, rest) = rest.split_first().ok_or(USAGE)?;
        match flag.to_str() {
            Some("--unix") => options.unix = Some(PathBuf::from(value)),
            Some("--runtime") => options.runtime = Some(PathBuf::from(value)),
            _ => return Err(USAGE.to_owned()),
        }
        arguments = rest;
    }
    Ok(options)
}
