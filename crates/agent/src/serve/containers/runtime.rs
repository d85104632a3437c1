//! The OCI runtime in the guest: which one, and how it is called. `crun` and `runc` are called alike.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::Value;

use super::process::Shim;
use crate::{
    serve::{Outcome, execute::Streams, failed},
    shim::{self, message::Start},
};

/// Where a runtime is looked for, the better one first: `crun` is small and starts quickly.
const PLACES: [&str; 4] = ["/bin/crun", "/usr/bin/crun", "/bin/runc", "/usr/sbin/runc"];

pub(super) struct Runtime {
    program: PathBuf,
    /// Where it keeps what it knows, and we keep the files of a call.
    folder: PathBuf,
    calls: AtomicU64,
}

/// The runtime of this machine, if it has one.
pub(in crate::serve) fn find() -> Option<PathBuf> {
    let mut places = PLACES.iter().map(PathBuf::from);
    places.find(|program| program.is_file())
}

impl Runtime {
    pub(super) fn new(program: PathBuf, folder: &Path) -> Self {
        Self {
            program,
            folder: folder.to_owned(),
            calls: AtomicU64::new(0),
        }
    }

    /// Makes a container, whose first process waits to be started.
    pub(super) fn create(&self, id: &str, bundle: &Path, terminal: bool) -> Outcome<Shim> {
        let files = self.files()?;
        let mut words = self.words(&files, "create");
        words.extend(["--bundle".into(), bundle.into()]);
        if root_is_first() {
            // The kernel lets nobody turn away from the file system that it has unpacked itself.
            words.push("--no-pivot".into());
        }
        let console = terminal.then(|| files.path("console"));
        self.made(words, &files, console, id, None)
    }

    /// Runs a process in a container that runs.
    pub(super) fn exec(&self, id: &str, process: &Value, connections: Streams) -> Outcome<Shim> {
        let files = self.files()?;
        let document = files.path("process");
        fs::write(&document, process.to_string())
            .map_err(|error| failed(format!("write {}: {error}", document.display())))?;
        let mut words = self.words(&files, "exec");
        words.extend(["--detach".into(), "--process".into(), document.into()]);
        let terminal = process.get("terminal").and_then(Value::as_bool) == Some(true);
        let console = terminal.then(|| files.path("console"));
        self.made(words, &files, console, id, Some(connections))
    }

    fn made(
        &self,
        mut words: Vec<OsString>,
        files: &Files,
        console_socket: Option<PathBuf>,
        id: &str,
        connections: Option<Streams>,
    ) -> Outcome<Shim> {
        let pid_file = files.path("pid");
        words.extend(["--pid-file".into(), pid_file.clone().into()]);
        if let Some(socket) = &console_socket {
            words.extend(["--console-socket".into(), socket.into()]);
        }
        words.push(id.into());
        let words = words.into_iter().map(OsString::into_string);
        let words = words
            .collect::<Result<_, _>>()
            .map_err(|word| failed(format!("{} is not UTF-8", word.display())))?;
        let start = Start {
            words,
            pid_file,
            log: files.path("log"),
            console_socket,
            streams: connections
                .as_ref()
                .map(|all| all.each_ref().map(Option::is_some)),
        };
        Shim::begin(start, connections.unwrap_or_default())
    }

    /// Lets a container's first process begin.
    pub(super) fn start(&self, id: &str) -> Outcome<()> {
        self.call("start", &[], id)
    }

    /// Changes what a container may use.
    pub(super) fn update(&self, id: &str, resources: &Value) -> Outcome<()> {
        let files = self.files()?;
        let document = files.path("resources");
        fs::write(&document, resources.to_string())
            .map_err(|error| failed(format!("write {}: {error}", document.display())))?;
        self.call("update", &["--resources".into(), document.into()], id)
    }

    /// Takes away whatever there still is of a container.
    pub(super) fn delete(&self, id: &str) -> Outcome<()> {
        self.call("delete", &["--force".into()], id)
    }

    fn call(&self, what: &str, arguments: &[OsString], id: &str) -> Outcome<()> {
        let files = self.files()?;
        let words = self.words(&files, what);
        let (program, first) = words.split_first().ok_or_else(|| failed("no runtime"))?;
        let status = Command::new(program)
            .args(first)
            .args(arguments)
            .arg(id)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|error| failed(format!("run {}: {error}", self.program.display())))?;
        if status.success() {
            return Ok(());
        }
        let reason = shim::reason(&files.path("log"), &status.to_string());
        Err(failed(format!("{what} container {id}: {reason}")))
    }

    fn words(&self, files: &Files, what: &str) -> Vec<OsString> {
        vec![
            self.program.clone().into(),
            "--root".into(),
            self.folder.join("runtime").into(),
            "--log".into(),
            files.path("log").into(),
            what.into(),
        ]
    }

    /// A folder for the files of one call.
    fn files(&self) -> Outcome<Files> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(format!("call-{number}"));
        let made =
            fs::create_dir_all(self.folder.join("runtime")).and_then(|()| fs::create_dir(&folder));
        made.map_err(|error| failed(format!("make {}: {error}", folder.display())))?;
        Ok(Files(folder))
    }
}

/// The files of one call, which go with it.
struct Files(PathBuf);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether we live in the file system that the kernel unpacked at boot.
fn root_is_first() -> bool {
    let mounts: io::Result<String> = fs::read_to_string("/proc/self/mountinfo");
    mounts.is_ok_and(|mounts| {
        mounts.lines().any(|line| {
            // … mount point options … - type source options
            let point = line.split(' ').nth(4);
            let kind = line
                .split(" - ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next());
            point == Some("/") && kind == Some("rootfs")
        })
    })
}
