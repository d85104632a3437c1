//! Conversions whose target goes wrong: nothing under the final name, nothing beside it, and the path told once.

use std::error::Error as _;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
#[cfg(unix)]
use std::process::{Command, Stdio};

use opengcs_layer::{
    Error, ErrorKind, Existing, Format, ScratchOptions, TarToDiskOptions, create_scratch,
    tar_to_disk,
};

use crate::forge::Tar;

const FORMATS: [Format; 3] = [Format::FixedVhd, Format::Vhdx, Format::Raw];

fn sample() -> Vec<u8> {
    let noise: Vec<u8> = (0..6_000_000_u32).map(|at| (at % 253) as u8).collect();
    Tar::new().file("a", noise).end()
}

fn options(format: Format) -> TarToDiskOptions {
    TarToDiskOptions {
        format,
        ..TarToDiskOptions::default()
    }
}

/// The whole line that a person sees.
fn line(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(": {source}");
        next = source.source();
    }
    text
}

fn told_once(error: &Error, path: &Path) {
    let line = line(error);
    assert_eq!(line.matches(path.to_str().unwrap()).count(), 1, "{line}");
    assert!(!line.contains('\n'), "{line}");
}

fn is_empty(folder: &Path) {
    let left: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Does something when half of the stream has been read.
struct Midway<'a, F> {
    bytes: &'a [u8],
    half: usize,
    act: Option<F>,
}

fn midway<F: FnOnce()>(bytes: &[u8], act: F) -> Midway<'_, F> {
    Midway {
        bytes,
        half: bytes.len() / 2,
        act: Some(act),
    }
}

impl<F: FnOnce()> Read for Midway<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.len() <= self.half
            && let Some(act) = self.act.take()
        {
            act();
        }
        self.bytes.read(buffer)
    }
}

#[test]
fn folder_that_is_not_to_be_written_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let cases = [
        // Nobody writes there, root neither.
        ("/sys/opengcs.vhd".into(), None),
        (
            folder.path().join("missing/x.vhd"),
            Some(ErrorKind::NotFound),
        ),
        (folder.path().join("file/x.vhd"), None),
        (folder.path().join("n".repeat(300)), None),
    ];
    for (path, kind) in cases {
        for format in FORMATS {
            let error = tar_to_disk(&sample()[..], &path, &options(format)).unwrap_err();
            assert!(kind.is_none_or(|kind| error.kind() == kind), "{error:?}");
            told_once(&error, &path);
        }
        let error = create_scratch(&path, &ScratchOptions::default()).unwrap_err();
        told_once(&error, &path);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[cfg(unix)] // Windows keeps a folder whose files are open.
#[test]
fn folder_that_goes_away_midway_is_told() {
    let tar = sample();
    for (format, existing) in [
        (Format::FixedVhd, Existing::Replace),
        (Format::Vhdx, Existing::Keep),
        (Format::Raw, Existing::Replace),
    ] {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("layers");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("x.vhd");
        let options = TarToDiskOptions {
            existing,
            ..options(format)
        };
        let input = midway(&tar, || fs::remove_dir_all(&folder).unwrap());
        let error = tar_to_disk(input, &path, &options).unwrap_err();
        told_once(&error, &path);
        is_empty(above.path());
    }
}

#[test]
fn target_that_appears_midway_is_kept_or_replaced_as_asked() {
    let tar = sample();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.vhd");
    for (existing, replaced) in [(Existing::Keep, false), (Existing::Replace, true)] {
        let options = TarToDiskOptions {
            existing,
            ..options(Format::Raw)
        };
        let input = midway(&tar, || fs::write(&path, "theirs").unwrap());
        let result = tar_to_disk(input, &path, &options);
        assert_eq!(result.is_ok(), replaced);
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
            told_once(&error, &path);
        }
        assert_eq!(fs::read(&path).unwrap() == b"theirs", !replaced);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::remove_file(&path).unwrap();
    }
    // A folder cannot be replaced by a file.
    let input = midway(&tar, || fs::create_dir(&path).unwrap());
    let error = tar_to_disk(input, &path, &options(Format::Raw)).unwrap_err();
    told_once(&error, &path);
    assert!(path.is_dir());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn reader_that_panics_leaves_nothing() {
    let tar = sample();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.vhd");
    for format in FORMATS {
        let panicked = std::panic::catch_unwind(|| {
            let input = midway(&tar, || panic!("in the middle"));
            tar_to_disk(input, &path, &options(format)).map(drop)
        });
        assert!(panicked.is_err());
        is_empty(folder.path());
    }
}

#[cfg(unix)]
const CHILD: &str = "OPENGCS_PUBLICATION_TARGET";

#[cfg(unix)]
/// What a child process does: converts its standard input, and says how that went.
#[allow(clippy::print_stdout, reason = "its parent reads it")]
fn convert_as_child(target: &str) {
    let (format, path) = target.split_once(' ').unwrap();
    let options = options(format.parse().unwrap());
    match tar_to_disk(io::stdin(), path.as_ref(), &options) {
        Ok(_) => println!("converted"),
        Err(error) => println!("error {:?} {}", error.kind(), line(&error)),
    }
}

#[cfg(unix)]
/// This test again, in a process of its own, behind a shell's `prefix`.
fn child(prefix: &str, format: Format, path: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{prefix} exec \"$0\" \"$@\"")]);
    command.arg(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "publication::file_that_may_not_grow_or_is_killed_leaves_nothing",
    ]);
    command.arg("--nocapture");
    command.env(CHILD, format!("{format} {}", path.display()));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

#[cfg(unix)]
#[test]
fn file_that_may_not_grow_or_is_killed_leaves_nothing() {
    if let Ok(target) = std::env::var(CHILD) {
        return convert_as_child(&target);
    }
    let tar = sample();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.vhd");
    for format in FORMATS {
        // Files may have 2 MiB; the signal that says so is not waited for.
        let mut limited = child("trap '' XFSZ; ulimit -f 4096;", format, &path)
            .spawn()
            .unwrap();
        // It ends before all is read.
        let _ = io::Write::write_all(&mut limited.stdin.take().unwrap(), &tar);
        let output = limited.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let said = text
            .lines()
            .find(|line| line.contains("error"))
            .expect(&text);
        assert!(said.contains("NoSpace"), "{said}");
        assert_eq!(said.matches(path.to_str().unwrap()).count(), 1, "{said}");
        is_empty(folder.path());

        let mut killed = child("", format, &path).spawn().unwrap();
        let mut input = killed.stdin.take().unwrap();
        io::Write::write_all(&mut input, &tar[..tar.len() - 2048]).unwrap();
        killed.kill().unwrap();
        killed.wait().unwrap();
        drop(input);
        assert!(!path.exists());
        // Where the system has files without names, there is not even a temporary one.
        for entry in fs::read_dir(folder.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                name.contains(opengcs_layer::publish::TEMPORARY_MARK),
                "{name}"
            );
            fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
}
