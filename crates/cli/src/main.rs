//! The `opengcs` command line: layers to disk files and back, scratch disks, and utility VMs.
//!
//! One file per command under `command`; beside it, what they share: how a failure is told, how a
//! result is shown, how a signal stops the work.

mod arguments;
mod command;
mod context;
mod detach_keys;
mod disk_format;
mod events;
mod failure;
mod image;
mod input;
mod logging;
mod output;
mod progress;
mod report;
mod signals;
mod size;
mod stdio;
mod sys;
mod usage;
mod warnings;

use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _};

use arguments::Arguments;
use context::Context;

/// For what still runs when the command is over.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(not_understood(&error)),
    };
    logging::start(&arguments.common);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = anyhow::Error::new(error).context("cannot start");
            failure::tell(&error, failure::FAILED, false);
            return ExitCode::FAILURE;
        }
    };
    let verbose = arguments.common.verbose > 0;
    let own_failure = arguments.command.own_failure();
    let code = runtime.block_on(async {
        let context = Context::new(&arguments.common);
        let result = arguments.command.run(&context).await;
        failure::exit_code(&result, &context, own_failure, verbose)
    });
    // What runs in the background ends a VM that was given up; a thread that is stuck is not waited
    // for any longer.
    runtime.shutdown_timeout(PATIENCE);
    ExitCode::from(code)
}

/// Reads the command line. Events are told from here on if the command is asked for JSON.
fn parse() -> Result<Arguments, clap::Error> {
    let mut command = Arguments::command();
    let found = command.try_get_matches_from_mut(std::env::args_os())?;
    if found.get_flag("json") {
        events::begin();
    }
    Arguments::from_arg_matches(&found).map_err(|error| error.format(&mut command))
}

/// Tells why, and returns the exit code. Asking for help is no failure.
fn not_understood(error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        // It goes to stdout; nobody is left to tell when that fails.
        let _ = error.print();
        return 0;
    }
    // What was not understood may hold the word anywhere, but not among a program's own arguments.
    let mut words = std::env::args_os().take_while(|word| word != "--");
    let json = words.any(|word| word == "--json");
    if json {
        events::begin();
    } else if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Who names only a group of commands asks which there are.
        let _ = error.print();
        return failure::USAGE;
    }
    failure::tell(&usage::failure(error).into(), failure::USAGE, false);
    failure::USAGE
}
