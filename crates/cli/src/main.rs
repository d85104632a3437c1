//! The `opengcs` command line: layers to disk files and back, scratch disks, and utility VMs.
//!
//! One file per command under `command`; beside it, what they share: how a failure is told, how a
//! result is shown, how a signal stops the work.

mod arguments;
mod command;
mod context;
mod disk_format;
mod failure;
mod input;
mod logging;
mod output;
mod progress;
mod report;
mod signals;
mod size;
mod stdio;
mod sys;
mod warnings;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use arguments::Arguments;
use context::Context;

/// For what still runs when the command is over.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help goes to stdout and errors to stderr; nobody is left to tell when that fails.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                failure::USAGE
            } else {
                0
            });
        }
    };
    logging::start(&arguments.common);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            failure::tell(&anyhow::Error::new(error).context("cannot start"), false);
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
