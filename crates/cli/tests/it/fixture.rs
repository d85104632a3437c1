//! A folder for a test, the program in it, and inputs good and bad.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

#[cfg(not(windows))]
use assert_cmd::Command;

#[cfg(windows)]
use crate::program::Command;

#[cfg(windows)]
#[path = "../../../../xtask/windows/judge.rs"]
mod linux;

#[cfg(not(windows))]
mod linux {
    use std::ffi::OsStr;
    use std::process::{Command, Output};

    pub(super) fn output(program: &str, arguments: &[&OsStr]) -> std::io::Result<Output> {
        Command::new(program).args(arguments).output()
    }
}

/// The variables with a user's folders. Those of Unix would be wine's own.
const TEMPORARY: &str = if cfg!(windows) { "TMP" } else { "TMPDIR" };
const HOME: &str = if cfg!(windows) { "USERPROFILE" } else { "HOME" };

/// A fresh folder in which the program runs; everything of the user's environment is out of sight.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        Self { folder }
    }

    /// The folder in which the program runs.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// The data folder, which nobody has made yet.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.work().join(name)
    }

    /// The program with these arguments.
    pub(crate) fn opengcs<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::cargo_bin("opengcs").unwrap();
        command.args(arguments);
        self.surround(&mut command);
        command
    }

    /// Gives any program the surroundings of this place.
    pub(crate) fn surround(&self, command: &mut Command) {
        command
            .current_dir(self.work())
            .env("OPENGCS_DATA_DIR", self.data())
            .env(TEMPORARY, self.folder.path().join("tmp"))
            .env(HOME, self.folder.path())
            .env_remove("OPENGCS_LOG")
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_DATA_HOME");
    }

    /// Runs the program, which must do what it is told.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.opengcs(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program, which must fail with `code`, say so in one line that has all of `words`, and
    /// leave everything as it was.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let mut command = self.opengcs(arguments);
        self.fails_as(&mut command, code, words);
    }

    /// The same for a command that is prepared already.
    #[track_caller]
    pub(crate) fn fails_as(&self, command: &mut Command, code: i32, words: &[&str]) {
        let before = self.names();
        let output = command.output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
        let mut lines = said.lines();
        let line = lines.next().unwrap_or_default();
        assert!(line.starts_with("opengcs: "), "{command:?}: {said}");
        for word in words {
            assert!(line.contains(word), "no {word:?} in: {said}");
        }
        for line in lines {
            assert!(line.starts_with("hint: "), "{command:?}: {said}");
        }
        assert_eq!(self.names(), before, "{command:?}: {said}");
    }

    /// Every path below this place.
    pub(crate) fn names(&self) -> Vec<PathBuf> {
        let mut names = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path.clone());
                }
                names.push(path);
            }
        }
        names.sort();
        names
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes `layer.tar`, and `layer.vhd` made of it.
    #[track_caller]
    pub(crate) fn with_layer(self) -> Self {
        self.write("layer.tar", &tar());
        self.ok(&["-q", "tar2vhd", "-i", "layer.tar", "-o", "layer.vhd"]);
        self
    }
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A tar with a folder, files small and large, a symbolic and a hard link, and a whiteout.
pub(crate) fn tar() -> Vec<u8> {
    use tar::EntryType::{Directory, Link, Symlink};
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, target: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(if kind == Directory { 0o755 } else { 0o644 });
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        if target.is_empty() {
            builder.append_data(&mut header, name, content).unwrap();
        } else {
            builder.append_link(&mut header, name, target).unwrap();
        }
    };
    let file = tar::EntryType::Regular;
    add("folder/", Directory, "", b"");
    add("folder/hello", file, "", b"hello, layer\n");
    add("folder/large", file, "", &noise(700_000));
    add("folder/hard", Link, "folder/hello", b"");
    add("link", Symlink, "folder/hello", b"");
    add("folder/.wh.gone", file, "", b"");
    builder.into_inner().unwrap()
}

/// Bytes that do not compress, always the same.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def1_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// A tar with entries of these names, empty files unless they end in a slash.
pub(crate) fn tar_of(names: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(if name.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(0o755);
        header.set_size(0);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Names in a tar, sorted.
pub(crate) fn tar_names(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let mut names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned())
        .collect();
    names.sort();
    names
}

/// Runs a judge, which must be there and be content.
#[track_caller]
pub(crate) fn judge(program: &str, arguments: &[&OsStr]) -> String {
    let output = linux::output(program, arguments)
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &said(&output);
    assert!(output.status.success(), "{program}: {text}");
    text
}

/// `e2fsck -fn` on a raw image, or on a fixed VHD, whose footer it does not mind.
#[track_caller]
pub(crate) fn e2fsck(path: &Path) {
    judge("e2fsck", &["-fn".as_ref(), path.as_os_str()]);
}

/// The smallest file that passes for a kernel.
pub(crate) fn kernel(release: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x300];
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    bytes.extend_from_slice(release.as_bytes());
    bytes.extend_from_slice(b" (someone) #1 SMP\0more");
    bytes
}
