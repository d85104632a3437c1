//! What stands for `assert_cmd::Command` on a Windows without pipes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Output, Stdio};

#[path = "../../../../xtask/windows/program.rs"]
mod files;

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
        let stdin = match &self.stdin {
            Stdin::Nothing => Stdio::null(),
            Stdin::Bytes(bytes) => {
                let given = folder.path().join("stdin");
                fs::write(&given, bytes)?;
                File::open(&given)?.into()
            }
            Stdin::File(path) => File::open(path)?.into(),
        };
        files::output(&mut self.command, stdin)
    }
}
