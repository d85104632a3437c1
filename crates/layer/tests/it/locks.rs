//! Locks held against QEMU's own, by `qemu-io`.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

use crate::judge;
use opengcs_layer::{
    DiskToTarOptions, ErrorKind, Format, TarToDiskOptions, copy_file, disk_to_tar, tar_to_disk,
};

/// A disk with more on it than waits between the reader and the writer of a tar.
fn disk(folder: &Path) -> PathBuf {
    let content = folder.join("content");
    std::fs::write(&content, vec![7; 24 << 20]).unwrap();
    let tar = judge::succeed("tar", &["-C", folder.to_str().unwrap(), "-c", "content"]);
    let path = folder.join("disk.img");
    let options = TarToDiskOptions {
        format: Format::Raw,
        ..TarToDiskOptions::default()
    };
    tar_to_disk(tar.as_slice(), &path, &options).unwrap();
    path
}

/// A program of QEMU's that has the disk open, and waits for its commands.
struct Holder(Child);

impl Holder {
    fn start(path: &Path, options: &[&str]) -> Self {
        let mut child = Command::new("qemu-io")
            .args(["-f", "raw"])
            .args(options)
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-io is needed: install qemu-utils");
        // It prompts when it has the disk.
        let mut prompt = [0; 1];
        let output = child.stdout.as_mut().unwrap();
        output.read_exact(&mut prompt).unwrap();
        Self(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        drop(self.0.stdout.take());
        self.0.wait().unwrap();
    }
}

fn qemu_io(path: &Path, options: &[&str]) -> Output {
    Command::new("qemu-io")
        .args(["-f", "raw"])
        .args(options)
        .arg(path)
        .output()
        .unwrap()
}

#[test]
fn what_a_machine_writes_to_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path());
    let copy = folder.path().join("copy.img");
    let writer = Holder::start(&path, &[]);
    let exported = disk_to_tar(&path, io::sink(), &DiskToTarOptions::default());
    let copied = copy_file(&path, &copy, false);
    writer.end();
    let exported = exported.unwrap_err();
    assert_eq!(exported.kind(), ErrorKind::Locked);
    assert!(exported.to_string().contains("disk.img"), "{exported}");
    assert_eq!(copied.unwrap_err().kind(), ErrorKind::Locked);
    assert!(!copy.exists());

    let reader = Holder::start(&path, &["-r"]);
    disk_to_tar(&path, io::sink(), &DiskToTarOptions::default()).unwrap();
    copy_file(&path, &copy, false).unwrap();
    reader.end();
}

#[test]
fn what_a_machine_writes_to_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path());
    let before = std::fs::read(&path).unwrap();
    let empty = [0; 1024];
    let writer = Holder::start(&path, &[]);
    let replaced = tar_to_disk(empty.as_slice(), &path, &TarToDiskOptions::default());
    writer.end();
    let error = replaced.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("disk.img"), "{error}");
    assert!(std::fs::read(&path).unwrap() == before);
    tar_to_disk(empty.as_slice(), &path, &TarToDiskOptions::default()).unwrap();
}

/// A writer that waits before it takes the first byte.
struct Waiting {
    begun: Option<mpsc::Sender<()>>,
    go_on: mpsc::Receiver<()>,
}

impl Write for Waiting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(begun) = self.begun.take() {
            begun.send(()).unwrap();
            self.go_on.recv().unwrap();
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_being_read_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path());
    let (begun, has_begun) = mpsc::channel();
    let (let_go, go_on) = mpsc::channel();
    let output = Waiting {
        begun: Some(begun),
        go_on,
    };
    let (write, read) = std::thread::scope(|scope| {
        let export =
            scope.spawn(|| disk_to_tar(&path, output, &DiskToTarOptions::default()).unwrap());
        has_begun.recv().unwrap();
        let write = qemu_io(&path, &["-c", "write 0 512"]);
        let read = qemu_io(&path, &["-r", "-c", "read 0 512"]);
        let_go.send(()).unwrap();
        export.join().unwrap();
        (write, read)
    });
    let refused = String::from_utf8_lossy(&write.stderr).into_owned();
    assert!(!write.status.success());
    assert!(refused.contains("lock"), "{refused}");
    assert!(read.status.success());
    assert!(qemu_io(&path, &["-c", "write 0 512"]).status.success());
}
