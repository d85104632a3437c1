//! The main job of opengcs from end to end, on real input, each step with its time and result.
#![allow(clippy::print_stdout, reason = "a demonstration shows what it does")]

mod bytes;
mod control;
mod leftovers;
mod report;

use std::process::ExitCode;

use anyhow::Result;

use leftovers::Before;
use report::Report;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nthe demonstration failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let before = Before::look()?;
    let folder = tempfile::Builder::new().prefix("demo-").tempdir()?;
    let mut report = Report::start();

    let layer = bytes::make_layer(&mut report, folder.path())?;
    let sandbox = bytes::make_sandbox(&mut report, folder.path())?;
    let vm = control::start(&mut report, folder.path()).await?;
    control::stack(&mut report, &vm, &layer, &sandbox).await?;
    control::run_programs(&mut report, &vm).await?;
    let live = control::change_and_export(&mut report, &vm, &sandbox).await?;
    control::remove_and_stop(&mut report, &vm, &layer, &sandbox).await?;
    drop(vm);
    bytes::export_sandbox(&mut report, &sandbox, &live)?;
    bytes::compare_layer(&mut report, &layer)?;

    report.step("nothing is left behind");
    bytes::only_results_remain(folder.path())?;
    folder.close()?;
    before.compare()?;
    report.result("no process, no mount, no temporary file");
    report.finish();
    Ok(())
}
