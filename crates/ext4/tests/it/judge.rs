//! The foreign judges: `e2fsck` and `debugfs` on an image in a temporary file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use opengcs_ext4::{Finished, Writer, WriterOptions};
use tempfile::TempDir;

/// An image in a file that goes away with it.
pub(crate) struct Image {
    directory: TempDir,
    pub(crate) finished: Finished,
}

impl Image {
    /// Writes a volume with `fill`.
    pub(crate) fn write(options: &WriterOptions, fill: impl FnOnce(&mut Writer<File>)) -> Self {
        let directory = TempDir::new().unwrap();
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(directory.path().join("image"))
            .unwrap();
        let mut writer = Writer::new(file, options).unwrap();
        fill(&mut writer);
        let (finished, file) = writer.finish().unwrap();
        if file.metadata().unwrap().len() < finished.size {
            file.set_len(finished.size).unwrap();
        }
        assert_eq!(file.metadata().unwrap().len(), finished.size);
        Self {
            directory,
            finished,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// A path beside the image for what a test takes out of it.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Holds the image clean under `e2fsck -fn`, with not a word of complaint.
    #[track_caller]
    pub(crate) fn check(&self) {
        check(&self.path());
    }

    /// Runs `debugfs` commands and gives back what they print.
    #[track_caller]
    pub(crate) fn debugfs(&self, command: &str) -> String {
        let output = Command::new("debugfs")
            .arg("-R")
            .arg(command)
            .arg(self.path())
            .output()
            .expect("debugfs runs (package e2fsprogs)");
        assert!(output.status.success(), "debugfs {command}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A file's bytes as `debugfs dump` finds them.
    #[track_caller]
    pub(crate) fn dump(&self, path: &str) -> Vec<u8> {
        let target = self.beside("dumped");
        self.debugfs(&format!("dump {path} {}", target.display()));
        let bytes = std::fs::read(&target).expect("debugfs dumped a file");
        std::fs::remove_file(&target).unwrap();
        bytes
    }
}

/// Runs `e2fsck -fn` and demands that it has nothing to say but the five passes and the summary.
#[track_caller]
pub(crate) fn check(path: &Path) {
    let output = Command::new("e2fsck")
        .args(["-f", "-n"])
        .arg(path)
        .output()
        .expect("e2fsck runs (package e2fsprogs)");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with("Pass ") && !line.contains(" files (") && !line.is_empty())
        .collect();
    assert!(
        output.status.success() && complaints.is_empty(),
        "e2fsck exit {:?}:\n{said}{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stderr)
    );
}
