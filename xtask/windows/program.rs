//! Runs a program without pipes, for a Windows that lacks those of the standard library: wine 8 does.

use std::fs::{self, File};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A program takes seconds, and this long on a host that has a lot to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs `command` to its end, with what it says in files.
pub(super) fn output(command: &mut Command, stdin: Stdio) -> std::io::Result<Output> {
    let folder = tempfile::tempdir()?;
    let [out, err] = ["stdout", "stderr"].map(|name| folder.path().join(name));
    command.stdin(stdin);
    command.stdout(File::create(&out)?);
    command.stderr(File::create(&err)?);
    let mut child = command.spawn()?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill()?;
            panic!("{command:?} has not ended within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ok(Output {
        status,
        stdout: fs::read(&out)?,
        stderr: fs::read(&err)?,
    })
}
