//! Which tests run, with what beside them, and the one line that sums them up.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{dist, guest, host, run, windows};

/// After as long without a word, tests hang and are ended. Much longer than all tests take, or than it takes to
/// build them on a machine that has built nothing yet.
const SILENCE: Duration = Duration::from_secs(30 * 60);

/// What `cargo xtask test` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave out the tests that boot a VM (the closing line says so).
    #[arg(long)]
    no_vm: bool,
    /// Only the host side's tests for Windows, run by wine; installs what they need.
    #[arg(long, conflicts_with = "no_vm")]
    windows: bool,
    /// Carry 10 GiB each way through the processes of a VM instead of some MiB, 4 GiB through one of them,
    /// and give a VM all 256 disks at once.
    #[arg(long, conflicts_with_all = ["no_vm", "windows"])]
    long: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

#[derive(Default)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs every test of the workspace and prints `N passed, N failed` last.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut count = Count::default();
    let mut all_ran = true;
    if options.windows {
        all_ran &= tests_for_windows(windows::lane()?, options, &mut count)?;
        return summary(&count, all_ran);
    }
    host::ensure(host::TEST)?;
    let mut host_tests = run::cargo();
    host_tests.args(["test", "--workspace", "--no-fail-fast"]);
    host_tests.args(["--exclude", "vmtest", "--exclude", "opengcs-machine"]);
    all_ran &= tests(&mut host_tests, options, &[], &mut count)?;
    all_ran &= tests_that_mount(options, &mut count)?;
    if options.no_vm {
        println!("left out on request: the tests that boot a VM (vmtest, opengcs-machine)");
    } else {
        let data = guest::prepare_with_runtime()?;
        let mut vm_tests = run::cargo();
        vm_tests.args([
            "test",
            "--no-fail-fast",
            "-p",
            "opengcs-machine",
            "-p",
            "vmtest",
        ]);
        vm_tests.env("OPENGCS_DATA_DIR", &data);
        vm_tests.env("OPENGCS_TEST_VHDX", guest::boot_disk(&data)?);
        vm_tests.env("OPENGCS_TEST_KERNEL", data.join("bootx64.efi"));
        vm_tests.env("OPENGCS_TEST_MODULES", data.join("modules"));
        vm_tests.env("OPENGCS_TEST_CONTAINERS_INITRD", guest::CONTAINERS_INITRD);
        vm_tests.env("OPENGCS_TEST_RUNC_INITRD", guest::RUNC_INITRD);
        vm_tests.env("OPENGCS_TEST_CLI", run::target_dir().join("debug/opengcs"));
        if options.long {
            vm_tests.env("OPENGCS_TEST_STREAM_MIB", "640");
            vm_tests.env("OPENGCS_TEST_DISKS", "256");
        }
        all_ran &= tests(&mut vm_tests, options, &[], &mut count)?;
        if options.filter.is_none() {
            packages(&mut count);
        }
    }
    match windows::lane() {
        Ok(lane) => all_ran &= tests_for_windows(lane, options, &mut count)?,
        Err(error) => println!("left out: the tests for Windows under wine, because {error:#}"),
    }
    summary(&count, all_ran)
}

/// The closing line, and a failure if there was one.
fn summary(count: &Count, all_ran: bool) -> Result<()> {
    let Count {
        passed,
        failed,
        ignored,
    } = *count;
    println!("{passed} passed, {failed} failed, {ignored} skipped");
    if failed > 0 {
        bail!("{failed} tests failed");
    }
    if !all_ran {
        bail!("cargo test failed before or beside its tests");
    }
    Ok(())
}

/// Runs the tests that the first round has skipped because they mount images in this host's kernel,
/// where that is possible, and takes them off the skipped.
fn tests_that_mount(options: &Options, count: &mut Count) -> Result<bool> {
    if let Err(why) = host::can_mount() {
        println!(
            "left out: the ext4 tests that mount in this host's kernel (skipped above): {why:#}"
        );
        return Ok(true);
    }
    let mut mounting = run::cargo();
    mounting.args([
        "test",
        "--no-fail-fast",
        "-p",
        "opengcs-ext4",
        "--test",
        "it",
    ]);
    let mut more = Count::default();
    let all_ran = tests(&mut mounting, options, &["--ignored"], &mut more)?;
    count.take_up(&more);
    Ok(all_ran)
}

/// Installs the packages into a clean Debian and uses them there, as one test.
fn packages(count: &mut Count) {
    match dist::trial() {
        Ok(true) => count.passed += 1,
        Ok(false) => {}
        Err(error) => {
            println!("the packages do not work: {error:#}");
            count.failed += 1;
        }
    }
}

fn tests_for_windows(
    mut lane: windows::Lane,
    options: &Options,
    count: &mut Count,
) -> Result<bool> {
    println!(
        "left out under wine: tests of what is Unix's (shells, devices, links, sockets, signals), each with its \
         reason in the source; monitors, which are Linux's; VMs"
    );
    run::run(&mut lane.examples)?;
    let mut all_ran = true;
    for (command, harness) in &mut lane.tests {
        all_ran &= tests(command, options, harness, count)?;
    }
    Ok(all_ran)
}

/// Runs one `cargo test`, shows what it prints, and adds up its result lines.
fn tests(
    command: &mut Command,
    options: &Options,
    harness: &[&str],
    count: &mut Count,
) -> Result<bool> {
    command.arg("--").args(&options.filter).args(harness);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no output")?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        while lines.next().is_some_and(|line| tell.send(line).is_ok()) {}
    });
    loop {
        match told.recv_timeout(SILENCE) {
            Ok(line) => {
                let line = line.context("cargo test prints what is no text")?;
                println!("{line}");
                count.add(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                println!("ended: the tests above hang, nothing was said for {SILENCE:?}");
                run::end_with_descendants(&mut child)?;
                count.failed += 1;
                return Ok(false);
            }
        }
    }
    Ok(child
        .wait()
        .context("cannot wait for cargo test")?
        .success())
}

impl Count {
    /// Adds tests that were counted as skipped before.
    fn take_up(&mut self, more: &Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.ignored = self.ignored.saturating_sub(more.passed + more.failed);
    }

    /// Adds a line like `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let number = |word: &str| {
            result
                .split(['.', ';'])
                .filter_map(|part| part.trim().strip_suffix(word))
                .find_map(|number| number.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.passed += number("passed");
        self.failed += number("failed");
        self.ignored += number("ignored");
    }
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn result_lines_add_up_and_others_do_not_count() {
        let mut count = Count::default();
        count.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        count.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured");
        count.add("test a::b ... ok");
        assert_eq!((count.passed, count.failed, count.ignored), (15, 2, 1));
        let mut more = Count::default();
        more.add("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 12 filtered out");
        count.take_up(&more);
        assert_eq!((count.passed, count.failed, count.ignored), (16, 2, 0));
    }
}
