//! What is seen on a terminal and nowhere else: bars, colours, and what Ctrl-C does.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::fixture::{Place, said, tar};

/// A terminal, seen from its user's side.
struct Screen {
    user: File,
    path: String,
    seen: String,
}

impl Screen {
    fn new() -> Self {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&user, size).unwrap();
        let path = ptsname(&user, Vec::new()).unwrap().into_string().unwrap();
        Self {
            user: File::from(user),
            path,
            seen: String::new(),
        }
    }

    /// The program's side.
    fn side(&self) -> OwnedFd {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            rustix::fs::OFlags::NOCTTY.bits().cast_signed(),
        );
        options.open(&self.path).unwrap().into()
    }

    /// Waits until all of `words` have been on the screen.
    #[track_caller]
    fn wait_for(&mut self, words: &[&str]) {
        let mut bytes = [0; 4096];
        while !words.iter().all(|word| self.seen.contains(word)) {
            let count = self
                .user
                .read(&mut bytes)
                .unwrap_or_else(|error| panic!("{error}: {words:?} never came: {}", self.seen));
            self.seen += &String::from_utf8_lossy(&bytes[..count]);
        }
    }

    /// Waits for the end of the program, the last that holds the other side.
    fn end(&mut self, mut child: Child) -> ExitStatus {
        let mut bytes = [0; 4096];
        // Linux calls it a failure when nobody has the other side any more.
        while let Ok(count @ 1..) = self.user.read(&mut bytes) {
            self.seen += &String::from_utf8_lossy(&bytes[..count]);
        }
        child.wait().unwrap()
    }
}

/// What decides on colours, beside `TERM`.
const COLOUR_VARIABLES: [&str; 4] = ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"];

/// The program as `place` has it, behind `before`.
fn opengcs(place: &Place, before: &[&str]) -> Command {
    let program = assert_cmd::cargo::cargo_bin("opengcs");
    let mut words = before.iter();
    let mut command = match words.next() {
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(program);
            command
        }
        None => Command::new(program),
    };
    command
        .current_dir(place.work())
        .env("TMPDIR", place.work())
        .env("TERM", "xterm")
        .env_remove("OPENGCS_LOG");
    // Whatever this runs in, a build service for one, which is taken for something that shows colours.
    for variable in COLOUR_VARIABLES {
        command.env_remove(variable);
    }
    command
}

/// Begins to write a tar to a pipe that nobody empties, with the terminal as stderr.
fn stuck(place: &Place, screen: &Screen, before: &[&str]) -> Child {
    opengcs(place, before)
        .args(["vhd2tar", "layer.vhd"])
        .stdin(screen.side())
        .stdout(Stdio::piped())
        .stderr(screen.side())
        .spawn()
        .unwrap()
}

#[test]
fn a_bar_shows_bytes_rate_and_time_left_and_goes() {
    let place = Place::new().with_layer();
    let mut screen = Screen::new();
    let mut child = stuck(&place, &screen, &[]);
    screen.wait_for(&["writing a tar", "KiB of", "KiB/s", "left"]);
    let mut tar = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut tar).unwrap();
    assert!(screen.end(child).success(), "{}", screen.seen);
    assert!(
        tar == place
            .opengcs(["vhd2tar", "layer.vhd"])
            .output()
            .unwrap()
            .stdout
    );
    // The line is wiped, so that nothing is left of it.
    let end = screen.seen.trim_end();
    assert!(end.ends_with("\x1b[2K"), "{:?}", screen.seen);
}

#[test]
fn input_of_unknown_length_shows_what_came() {
    let place = Place::new();
    let mut screen = Screen::new();
    let mut child = opengcs(&place, &[])
        .args(["tar2vhd", "-o", "layer.vhd"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(screen.side())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let tar = tar();
    let (some, rest) = tar.split_at(tar.len() - 2048);
    stdin.write_all(some).unwrap();
    screen.wait_for(&["writing layer.vhd", "/s"]);
    stdin.write_all(rest).unwrap();
    drop(stdin);
    assert!(screen.end(child).success(), "{}", screen.seen);
    assert!(place.path("layer.vhd").is_file());
}

#[test]
fn quiet_shows_nothing() {
    let place = Place::new().with_layer();
    let mut screen = Screen::new();
    let child = opengcs(&place, &[])
        .args(["-q", "vhd2tar", "layer.vhd", "-o", "b.tar"])
        .stdin(screen.side())
        .stdout(screen.side())
        .stderr(screen.side())
        .spawn()
        .unwrap();
    assert!(screen.end(child).success());
    assert_eq!(screen.seen, "");
}

#[test]
fn ctrl_c_ends_a_write_that_nobody_reads() {
    let place = Place::new().with_layer();
    let before = place.names();
    let mut screen = Screen::new();
    let child = stuck(&place, &screen, &["setsid", "--ctty"]);
    screen.wait_for(&["KiB of"]);
    screen.user.write_all(b"\x03").unwrap();
    let status = screen.end(child);
    assert_eq!(status.code(), Some(130), "{}", screen.seen);
    assert!(screen.seen.contains("stopped by an interrupt"));
    assert_eq!(place.names(), before);
}

#[test]
fn a_terminal_gets_no_tar_and_no_disk() {
    let place = Place::new().with_layer();
    for (words, what) in [
        (&["vhd2tar", "layer.vhd"][..], "a tar"),
        (&["tar2vhd", "-i", "layer.tar", "-o", "-"], "a disk file"),
    ] {
        let mut screen = Screen::new();
        let child = opengcs(&place, &[])
            .args(words)
            .stdin(Stdio::null())
            .stdout(screen.side())
            .stderr(screen.side())
            .spawn()
            .unwrap();
        assert_eq!(screen.end(child).code(), Some(2), "{}", screen.seen);
        assert!(screen.seen.contains(what), "{}", screen.seen);
        assert!(screen.seen.contains("-o FILE"), "{}", screen.seen);
        assert!(!screen.seen.contains('\0'));
    }
    // Nor is a tar typed in.
    let mut screen = Screen::new();
    let child = opengcs(&place, &[])
        .args(["tar2vhd", "-o", "b.vhd"])
        .stdin(screen.side())
        .stdout(Stdio::null())
        .stderr(screen.side())
        .spawn()
        .unwrap();
    assert_eq!(screen.end(child).code(), Some(2), "{}", screen.seen);
    assert!(screen.seen.contains("stdin is a terminal"));
}

#[test]
fn colours_are_for_terminals_and_follow_the_variables() {
    let place = Place::new();
    let seen = |variables: &[(&str, &str)]| {
        let mut screen = Screen::new();
        let child = opengcs(&place, &[])
            .args(["inspect", "gone"])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(screen.side())
            .spawn()
            .unwrap();
        assert_eq!(screen.end(child).code(), Some(1));
        screen.seen
    };
    assert!(seen(&[]).contains("\x1b[31mopengcs:\x1b[0m gone"));
    assert!(seen(&[("NO_COLOR", "1")]).starts_with("opengcs: gone"));
    assert!(seen(&[("TERM", "dumb")]).starts_with("opengcs: gone"));
    for (forced, coloured) in [(None, false), (Some("1"), true)] {
        let mut command = place.opengcs(["inspect", "gone"]);
        for variable in COLOUR_VARIABLES {
            command.env_remove(variable);
        }
        if let Some(forced) = forced {
            command.env("CLICOLOR_FORCE", forced);
        }
        let output = command.output().unwrap();
        assert_eq!(said(&output).contains('\x1b'), coloured, "{forced:?}");
    }
}
