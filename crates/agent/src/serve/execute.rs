//! `ExecuteProcess` outside of containers: what is run, in which surroundings, and where its stdio
//! goes.
//!
//! A process of the VM itself may have an `OciProcess` as well: it has what the protocol's own
//! parameters lack (user, limits, the terminal's size), and each of its members wins.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use opengcs_bridge::message::{
    ConsoleSize, ExecuteSettings, OciProcess, ProcessParameters, StdioPorts,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};

use self::identity::Identity;
use super::{
    Agent, Outcome,
    console::Console,
    failed, invalid,
    processes::{Resize, Started},
};
use crate::{
    sys::spawn::{Program, Surroundings, spawn},
    transport::Dial,
};

pub(super) mod identity;
mod limits;

/// Where programs are looked for when the request's environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The connections of a process's standard input, output and error, where there are any.
pub(super) type Streams = [Option<OwnedFd>; 3];

/// Dials the host for the streams that are wanted, in the order that hosts expect.
pub(super) fn dial(
    dialer: &dyn Dial,
    parameters: &ProcessParameters,
    ports: StdioPorts,
) -> Outcome<Streams> {
    let wanted = [
        (parameters.create_stdin_pipe, ports.stdin, "stdin"),
        (parameters.create_stdout_pipe, ports.stdout, "stdout"),
        (parameters.create_stderr_pipe, ports.stderr, "stderr"),
    ];
    let is_wanted = |(wanted, port, _): &(bool, u32, &str)| *wanted && *port != 0;
    let dialled: Vec<u32> = wanted
        .iter()
        .filter(|stream| is_wanted(stream))
        .map(|(_, port, _)| *port)
        .collect();
    let mut connections = dialer.dial_each(&dialled).into_iter();
    let mut streams = Streams::default();
    for (stream, wanted) in streams.iter_mut().zip(&wanted) {
        if is_wanted(wanted) {
            let (_, port, name) = wanted;
            *stream = connections.next().transpose().map_err(|error| {
                failed(format!(
                    "connect {name} to port {port} of the host: {error}"
                ))
            })?;
        }
    }
    Ok(streams)
}

/// Starts a process outside any container, and gives its number.
pub(super) fn execute(agent: &Agent, settings: &ExecuteSettings) -> Outcome<u32> {
    let parameters = &settings.process_parameters.0;
    let plan = Plan::read(parameters)?;
    let mut program = plan.program()?;
    let [stdin, stdout, stderr] = dial(&*agent.dialer, parameters, settings.stdio)?;

    let console = if plan.terminal {
        // A terminal has one output: the host sees the end of the other at once.
        drop(stderr);
        let opened = Console::open().and_then(|console| {
            console.resize(plan.size)?;
            let owner = plan.identity.as_ref().map(|identity| identity.uid);
            program.stdio = console.attach(owner)?.map(Some);
            Ok(console)
        });
        let console = opened.map_err(|error| failed(format!("open a terminal: {error}")))?;
        Some((console, stdin, stdout))
    } else {
        program.stdio = [stdin, stdout, stderr];
        None
    };
    program.surroundings = plan.surroundings();
    let spawned = spawn(&program);
    let child = spawned.map_err(|error| {
        let path = program.path.to_string_lossy();
        failed(format!("start {path}: {error}"))
    })?;
    // The process alone holds its streams from here on: they end when it does.
    drop(program);
    let pid = child.as_raw_nonzero().get().unsigned_abs();
    let resize = console.as_ref().map(|(console, ..)| console.resizer());
    let process = take_in(agent, child, resize).inspect_err(|_| {
        // Nobody has reaped it, so that the number is its own.
        let _ = kill_process(child, Signal::KILL);
        let _ = waitpid(Some(child), WaitOptions::empty());
    })?;
    if let Some((console, stdin, stdout)) = console {
        console
            .relay(stdin, stdout, process)
            .map_err(|error| failed(format!("relay the terminal of process {pid}: {error}")))?;
    }
    Ok(pid)
}

/// Gives what becomes readable when the process has ended.
fn take_in(agent: &Agent, child: Pid, resize: Option<Resize>) -> Outcome<OwnedFd> {
    let pid = child.as_raw_nonzero().get().unsigned_abs();
    let open = || {
        pidfd_open(child, PidfdFlags::empty())
            .map_err(|error| failed(format!("watch process {pid}: {error}")))
    };
    let (child, process) = (open()?, open()?);
    agent.processes.insert(Started {
        pid,
        child,
        target: None,
        container: None,
        resize,
        ended: None,
    })?;
    Ok(process)
}

/// What is asked for, out of both descriptions of it.
struct Plan {
    words: Vec<String>,
    folder: String,
    environment: Vec<(String, String)>,
    terminal: bool,
    size: ConsoleSize,
    identity: Option<Identity>,
    surroundings: Surroundings,
}

impl Plan {
    fn read(parameters: &ProcessParameters) -> Outcome<Self> {
        let oci = OciProcess::parse(&parameters.oci_process)
            .map_err(|error| opengcs_bridge::Failure::from(&error))?;
        if !oci.capabilities.is_null() {
            return Err(invalid(
                "capabilities are for processes in containers; this one runs outside",
            ));
        }
        let identity = identity(&oci)?;
        let words = if oci.args.is_empty() {
            words(parameters)?
        } else {
            oci.args
        };
        let mut environment: Vec<(String, String)> = if oci.env.is_empty() {
            parameters.environment.clone().into_iter().collect()
        } else {
            oci.env.iter().map(|variable| split(variable)).collect()
        };
        check_environment(&environment)?;
        let home = identity.as_ref().and_then(|identity| identity.home.clone());
        if let Some(home) = home
            && !environment.iter().any(|(name, _)| name == "HOME")
        {
            environment.push(("HOME".to_owned(), home));
        }
        let folders = [oci.cwd, parameters.working_directory.clone()];
        let folder = folders.into_iter().find(|folder| !folder.is_empty());
        let surroundings = Surroundings {
            terminal: false,
            identity: identity.as_ref().map(Identity::numbers),
            limits: limits::read(&oci.rlimits)?,
            umask: oci.user.umask,
            oom_score_adj: oci.oom_score_adj.map(|score| score.to_string()),
            no_new_privileges: oci.no_new_privileges,
        };
        Ok(Self {
            words,
            folder: folder.unwrap_or_else(|| "/".to_owned()),
            environment,
            terminal: parameters.emulate_console || oci.terminal,
            size: oci.console_size,
            identity,
            surroundings,
        })
    }

    fn program(&self) -> Outcome<Program> {
        let (name, _) = self
            .words
            .split_first()
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| invalid("there is no command to run"))?;
        let folder = self.folder.as_str();
        let metadata = std::fs::metadata(folder)
            .map_err(|error| failed(format!("working directory {folder}: {error}")))?;
        if !metadata.is_dir() {
            return Err(failed(format!(
                "working directory {folder}: not a directory"
            )));
        }
        let path = self.environment.iter().rfind(|(name, _)| name == "PATH");
        let path = path.map_or(DEFAULT_PATH, |(_, path)| path);
        let path = find(name, path, Path::new(folder))
            .map_err(|error| failed(format!("start {name}: {error}")))?;
        // The last of several variables of one name counts.
        let environment: BTreeMap<_, _> = self
            .environment
            .iter()
            .map(|(name, value)| (name, format!("{name}={value}")))
            .collect();
        let word = |word: &[u8]| {
            CString::new(word).map_err(|_| invalid("a word of the command holds a zero byte"))
        };
        let words = |words: &mut dyn Iterator<Item = &String>| {
            let words = words.map(|one| word(one.as_bytes()));
            words.collect::<Outcome<Vec<_>>>()
        };
        Ok(Program {
            path: word(path.as_os_str().as_bytes())?,
            arguments: words(&mut self.words.iter())?,
            environment: words(&mut environment.values())?,
            folder: word(folder.as_bytes())?,
            stdio: [None, None, None],
            surroundings: Surroundings::default(),
        })
    }

    fn surroundings(self) -> Surroundings {
        Surroundings {
            terminal: self.terminal,
            ..self.surroundings
        }
    }
}

/// `None`: nobody in particular, which is root.
fn identity(oci: &OciProcess) -> Outcome<Option<Identity>> {
    let user = &oci.user;
    if user.username.is_empty() {
        let identity = Identity {
            uid: user.uid,
            gid: user.gid,
            groups: user.additional_gids.clone(),
            home: None,
        };
        let root = user.uid == 0 && user.gid == 0 && user.additional_gids.is_empty();
        return (!root).then(|| somebody(identity)).transpose();
    }
    let lists = identity::lists(Path::new("/"))
        .map_err(|error| failed(format!("read the users of the VM: {error}")))?;
    let mut found = identity::look_up(&user.username, &lists).map_err(failed)?;
    found.groups.extend(&user.additional_gids);
    somebody(found).map(Some)
}

/// Refuses the number that means "as it is" to the kernel: whoever asks for it would stay root.
fn somebody(identity: Identity) -> Outcome<Identity> {
    let mut numbers = [identity.uid, identity.gid].into_iter();
    if numbers.any(|number| number == u32::MAX) || identity.groups.contains(&u32::MAX) {
        return Err(invalid(format!(
            "{} is the number of no user and no group",
            u32::MAX
        )));
    }
    Ok(identity)
}

fn split(variable: &str) -> (String, String) {
    let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
    (name.to_owned(), value.to_owned())
}

pub(super) fn words(parameters: &ProcessParameters) -> Outcome<Vec<String>> {
    if !parameters.command_args.is_empty() {
        return Ok(parameters.command_args.clone());
    }
    shlex::split(&parameters.command_line)
        .ok_or_else(|| invalid("the command line has a quote or a backslash without its end"))
}

fn check_environment(environment: &[(String, String)]) -> Outcome<()> {
    for (name, _) in environment {
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
            let plan = Plan::read(&parameters(empty)).unwrap();
            assert!(plan.program().is_err(), "{empty}");
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
            let environment = [(name.to_owned(), String::new())];
            assert!(check_environment(&environment).is_err());
        }
    }

    #[test]
    fn each_member_of_the_oci_process_wins() {
        let mut both = parameters("from the line");
        both.working_directory = "/tmp".to_owned();
        both.environment = [("A".to_owned(), "1".to_owned())].into();
        both.oci_process = serde_json::json!({"consoleSize": {"height": 5, "width": 6}});
        let plan = Plan::read(&both).unwrap();
        assert_eq!(plan.words, ["from", "the", "line"]);
        assert_eq!((plan.size.height, plan.size.width), (5, 6));
        assert!(plan.identity.is_none() && plan.folder == "/tmp");
        both.oci_process = serde_json::json!({
            "args": ["b"], "env": ["B=2=3", "C"], "cwd": "/", "terminal": true,
            "user": {"uid": 7, "gid": 8, "additionalGids": [9]}
        });
        let plan = Plan::read(&both).unwrap();
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(plan.environment, [variable("B", "2=3"), variable("C", "")]);
        assert!(plan.words == ["b"] && plan.folder == "/" && plan.terminal);
        let identity = plan.identity.unwrap();
        assert_eq!((identity.uid, identity.gid), (7, 8));
        assert_eq!(identity.groups, [9]);
    }

    #[test]
    fn what_only_containers_have_is_refused() {
        let mut capable = parameters("true");
        capable.oci_process = serde_json::json!({"capabilities": {"bounding": []}});
        assert!(Plan::read(&capable).is_err());
        capable.oci_process = serde_json::json!({"args": "true"});
        assert!(Plan::read(&capable).is_err());
    }
}
