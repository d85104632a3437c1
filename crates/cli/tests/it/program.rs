//! Starts the program without pipes, for a Windows that lacks those of the standard library: wine 8 does.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Output, Stdio};
use std::time::{Duration, Instant};

/// The program takes seconds, and this long on a host that has a lot to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// As `assert_cmd::Command`, as far as the tests need it: what goes in and comes out lies in files.
#[derive(Debug)]
pub(crate) struct Command {
    command: process::Command,
    stdin: Stdin,
}

#[derive(Debug)]
enum Stdin {
    Nothing,
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Command {
    pub(crate) fn cargo_bin(name: &str) -> std::io::Result<Self> {
        Ok(Self {
            command: process::Command::new(assert_cmd::cargo::cargo_bin(name)),
            stdin: Stdin::Nothing,
        })
    }

    pub(crate) fn args<S: AsRef<OsStr>>(&mut self, all: impl IntoIterator<Item = S>) -> &mut Self {
        self.command.args(all);
        self
    }

    pub(crate) fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        &mut self,
        all: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        self.command.envs(all);
        self
    }

    pub(crate) fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn current_dir(&mut self, folder: impl AsRef<Path>) -> &mut Self {
        self.command.current_dir(folder);
        self
    }

    pub(crate) fn write_stdin(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.stdin = Stdin::Bytes(bytes.into());
        self
    }

    pub(crate) fn pipe_stdin(&mut self, path: impl AsRef<Path>) -> std::io::Result<&mut Self> {
        self.stdin = Stdin::File(path.as_ref().to_owned());
        Ok(self)
    }

    pub(crate) fn output(&mut self) -> std::io::Result<Output> {
        let folder = tempfile::tempdir()?;
        let [given, out, err] = ["stdin", "stdout", "stderr"].map(|name| folder.path().join(name));
        let stdin = match &self.stdin {
            Stdin::Nothing => Stdio::null(),
            Stdin::Bytes(bytes) => {
                fs::write(&given, bytes)?;
                File::open(&given)?.into()
            }
            Stdin::File(path) => File::open(path)?.into(),
        };
        self.command.stdin(stdin);
        self.command.stdout(File::create(&out)?);
        self.command.stderr(File::create(&err)?);
        let mut child = self.command.spawn()?;
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if started.elapsed() > PATIENCE {
                child.kill()?;
                panic!("{self:?} has not ended within {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Ok(Output {
            status,
            stdout: fs::read(&out)?,
            stderr: fs::read(&err)?,
        })
    }
}
