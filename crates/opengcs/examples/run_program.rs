//! A VM for one program: `run_program PROGRAM ARGUMENT…`.
//!
//! The program has this one's standard streams, and its exit code becomes this one's. The VM starts from
//! the kernel and initrd in the data folder; `opengcs doctor` says what is missing.

#![allow(clippy::print_stderr, reason = "an example talks to a person")]

use std::process::ExitCode;

use opengcs::{Config, Error, ExitStatus, ProcessSpec, UtilityVm};
use tokio::io::{stderr, stdin, stdout};

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() {
        eprintln!("usage: run_program PROGRAM ARGUMENT…");
        return ExitCode::from(2);
    }
    let code = match run(&words).await {
        Ok(status) => i32::try_from(status.code()).unwrap_or(255),
        Err(error) => {
            // One line with the causes and the advice; and all that a guest said which never came up.
            eprintln!("{}", error.report());
            eprint!("{}", error.detail().unwrap_or_default());
            125
        }
    };
    // Not returned: tokio would wait for a read of the standard input that nobody needs any more.
    std::process::exit(code)
}

async fn run(words: &[String]) -> Result<ExitStatus, Error> {
    let config = Config::generate_default(["lcow.timeout=120"])?;
    let vm = UtilityVm::start(config).await?;

    // All three streams move at once, however much there is of each.
    let program = ProcessSpec::new(words);
    let status = vm
        .run_process_with(program, stdin(), stdout(), stderr())
        .await;

    // Also when the program failed. A VM that is only dropped ends as well, by force.
    vm.stop().await?;
    status
}
