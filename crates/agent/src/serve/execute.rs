//! `ExecuteProcess`: what is run, in which surroundings, and where its stdio goes.

use std::{
    collections::BTreeMap,
    io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use opengcs_bridge::message::{ExecuteSettings, ProcessParameters};

use super::{Agent, Outcome, console::Console, failed, invalid};
use crate::sys;

/// Where programs are looked for when the request's environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts a process outside any container, and gives its number.
pub(super) fn execute(agent: &Agent, settings: ExecuteSettings) -> Outcome<u32> {
    let ports = settings.stdio;
    let parameters = settings.process_parameters.0;
    let mut command = command(&parameters)?;

    let dial = |wanted: bool, port: u32, name: &str| -> Outcome<Option<OwnedFd>> {
        if !wanted || port == 0 {
            return Ok(None);
        }
        let connection = agent.dialer.dial(port);
        connection.map(Some).map_err(|error| {
            failed(format!(
                "connect {name} to port {port} of the host: {error}"
            ))
        })
    };
    let stdin = dial(parameters.create_stdin_pipe, ports.stdin, "stdin")?;
    let stdout = dial(parameters.create_stdout_pipe, ports.stdout, "stdout")?;
    let stderr = dial(parameters.create_stderr_pipe, ports.stderr, "stderr")?;

    let console = if parameters.emulate_console {
        // A terminal has one output: the host sees the end of the other at once.
        drop(stderr);
        let console =
            Console::open().map_err(|error| failed(format!("open a terminal: {error}")))?;
        console
            .attach(&mut command)
            .map_err(|error| failed(format!("open a terminal: {error}")))?;
        Some((console, stdin, stdout))
    } else {
        command.stdin(stdio(stdin));
        command.stdout(stdio(stdout));
        command.stderr(stdio(stderr));
        None
    };
    sys::new_session(&mut command, console.is_some());
    let spawned = command.spawn();
    // The process alone holds its streams now: they end when it does.
    let program = command.get_program().to_string_lossy().into_owned();
    drop(command);
    let child = spawned.map_err(|error| failed(format!("start {program}: {error}")))?;
    let pid = child.id();
    let terminal = console.as_ref().map(|(console, ..)| console.terminal());
    if let Err(failure) = agent.processes.insert(pid, terminal) {
        let mut child = child;
        let _ = child.kill();
        let _ = child.wait();
        return Err(failure);
    }
    if let Some((console, stdin, stdout)) = console {
        console
            .relay(stdin, stdout)
            .map_err(|error| failed(format!("relay the terminal of process {pid}: {error}")))?;
    }
    Ok(pid)
}

fn stdio(connection: Option<OwnedFd>) -> Stdio {
    connection.map_or_else(Stdio::null, Stdio::from)
}

fn command(parameters: &ProcessParameters) -> Outcome<Command> {
    let words = words(parameters)?;
    let (name, arguments) = words
        .split_first()
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| invalid("there is no command to run"))?;
    let folder = match parameters.working_directory.as_str() {
        "" => "/",
        folder => folder,
    };
    let metadata = std::fs::metadata(folder)
        .map_err(|error| failed(format!("working directory {folder}: {error}")))?;
    if !metadata.is_dir() {
        return Err(failed(format!(
            "working directory {folder}: not a directory"
        )));
    }
    check_environment(&parameters.environment)?;
    let path = parameters.environment.get("PATH").map(String::as_str);
    let program = find(name, path.unwrap_or(DEFAULT_PATH), Path::new(folder))
        .map_err(|error| failed(format!("start {name}: {error}")))?;
    let mut command = Command::new(program);
    command
        .arg0(name)
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(&parameters.environment);
    Ok(command)
}

fn words(parameters: &ProcessParameters) -> Outcome<Vec<String>> {
    if !parameters.command_args.is_empty() {
        return Ok(parameters.command_args.clone());
    }
    shlex::split(&parameters.command_line)
        .ok_or_else(|| invalid("the command line has a quote or a backslash without its end"))
}

fn check_environment(environment: &BTreeMap<String, String>) -> Outcome<()> {
    for name in environment.keys() {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(invalid(format!(
                "{name:?} is not the name of an environment variable"
            )));
        }
    }
    Ok(())
}

/// Finds a program as `execvp` would, but by the path of the new process.
fn find(name: &str, path: &str, folder: &Path) -> io::Result<PathBuf> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let mut forbidden = false;
    for place in path.split(':') {
        // An empty place is the working directory, as ever; `join` keeps absolute ones.
        let candidate = folder.join(place).join(name);
        match std::fs::metadata(&candidate) {
            Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => {
                return Ok(candidate);
            }
            Ok(metadata) if metadata.is_file() => forbidden = true,
            Ok(_) | Err(_) => {}
        }
    }
    Err(if forbidden {
        io::Error::from(io::ErrorKind::PermissionDenied)
    } else {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("no such program in {path}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(line: &str) -> ProcessParameters {
        ProcessParameters {
            command_line: line.to_owned(),
            ..ProcessParameters::default()
        }
    }

    #[test]
    fn command_lines_are_split_as_a_shell_would() {
        let line = r#"/bin/sh -c "echo 'a  b'; x" 'c d'e\ f "" $HOME"#;
        assert_eq!(
            words(&parameters(line)).unwrap(),
            ["/bin/sh", "-c", "echo 'a  b'; x", "c de f", "", "$HOME"]
        );
        for bad in ["'", "a \"b", "a\\"] {
            assert!(words(&parameters(bad)).is_err(), "{bad}");
        }
        for empty in ["", "  ", "''"] {
            assert!(command(&parameters(empty)).is_err(), "{empty}");
        }
    }

    #[test]
    fn programs_are_found_by_the_path_given() {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new("/");
        let program = folder.path().join("tool");
        let path = format!("/nowhere:{}", folder.path().display());
        let missing = find("tool", &path, root).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        std::fs::write(&program, "").unwrap();
        let plain = find("tool", &path, root).unwrap_err();
        assert_eq!(plain.kind(), io::ErrorKind::PermissionDenied);
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find("tool", &path, root).unwrap(), program);
        assert_eq!(find("tool", "", folder.path()).unwrap(), program);
        assert_eq!(find("./x", "", root).unwrap(), Path::new("./x"));
    }

    #[test]
    fn names_of_the_environment_are_checked() {
        for name in ["", "A=B", "A\0"] {
            let environment = [(name.to_owned(), String::new())].into();
            assert!(check_environment(&environment).is_err());
        }
    }
}
