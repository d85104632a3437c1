//! How a task runs other programs: what they are called with is shown, and a failure names them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// The folder that holds the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
        .to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs this task.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Set for xtask itself; it would send nested builds to the wrong manifest.
    command.env_remove("CARGO_MANIFEST_DIR");
    command
}

/// Runs `command`, its output on our own terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", describe(command));
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", program(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", describe(command));
    }
    Ok(())
}

/// Runs `command` and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", program(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", describe(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Ends a program that hangs, and all that it has started.
pub(crate) fn end_with_descendants(child: &mut Child) -> Result<()> {
    let mut all = vec![child.id().to_string()];
    let mut seen = 0;
    while let Some(pid) = all.get(seen) {
        let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = listed.unwrap_or_default();
        all.extend(children.split_whitespace().map(str::to_owned));
        seen += 1;
    }
    // Some may have ended by themselves.
    let _ = Command::new("kill").arg("-KILL").args(&all).status();
    child.wait().context("cannot wait for what was ended")?;
    Ok(())
}

/// Fetches the standard library of another target when it is not there.
pub(crate) fn ensure_target(target: &str) -> Result<()> {
    let listed = || {
        output(Command::new("rustup").args(["target", "list", "--installed"]))
            .is_ok_and(|targets| targets.lines().any(|line| line == target))
    };
    if listed() || run(Command::new("rustup").args(["target", "add", target])).is_ok() && listed() {
        return Ok(());
    }
    bail!("the Rust target {target} is not to be had")
}

/// Whether `program` is in `PATH` or in the system's own folders.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|folder| folder.join(program).is_file())
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    #[test]
    fn what_a_program_has_started_is_ended_with_it() {
        let mut child = Command::new("sh")
            .args(["-c", "sh -c 'sleep 1000 & echo $!; wait'; true"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        end_with_descendants(&mut child).unwrap();
        // It dies in its own time, and nobody may have come for the dead one yet.
        let ended = || {
            std::fs::read_to_string(format!("/proc/{}/stat", said.trim()))
                .map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
        };
        let gone = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            ended()
        });
        assert!(gone, "{said}");
    }
}
