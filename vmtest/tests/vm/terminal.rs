//! `opengcs run` at a terminal: what is typed, the size, Ctrl-C, and the line that shows a start.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, ExitStatus};

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::Trial;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tempfile::TempDir;

use crate::fixture::{nothing_in, test};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test(
            "terminal::run_has_a_size_that_follows_and_ctrl_c_is_the_commands",
            follows,
        ),
        test(
            "terminal::ctrl_c_gives_a_start_up_and_leaves_no_vm",
            given_up,
        ),
    ]
}

/// A terminal, seen from its user's side.
struct Screen {
    user: File,
    path: String,
    seen: String,
}

impl Screen {
    fn new() -> Result<Self> {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&user)?;
        unlockpt(&user)?;
        let path = ptsname(&user, Vec::new())?.into_string()?;
        let screen = Self {
            user: File::from(user),
            path,
            seen: String::new(),
        };
        screen.resize(24, 100)?;
        Ok(screen)
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(&self.user, size)?)
    }

    /// The program's side.
    fn side(&self) -> Result<OwnedFd> {
        let not_ours = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(not_ours);
        Ok(options.open(&self.path)?.into())
    }

    /// Starts `opengcs run` in a session that this terminal belongs to.
    fn start(&self, runtime: &TempDir, arguments: &[&str]) -> Result<Child> {
        let program = std::env::var_os("OPENGCS_TEST_CLI")
            .context("OPENGCS_TEST_CLI is not set: run these tests with `cargo xtask test`")?;
        Ok(Command::new("setsid")
            .arg("--ctty")
            .arg(program)
            .arg("run")
            .args(arguments)
            .env("XDG_RUNTIME_DIR", runtime.path())
            .env("TERM", "xterm")
            .stdin(self.side()?)
            .stdout(self.side()?)
            .stderr(self.side()?)
            .spawn()?)
    }

    /// Waits until `words` have been on the screen.
    fn wait_for(&mut self, words: &str) -> Result<()> {
        while !self.seen.contains(words) {
            if !self.more()? {
                bail!("{words:?} never came: {}", self.seen);
            }
        }
        Ok(())
    }

    /// Waits for the end of the program, the last that holds the other side.
    fn end(&mut self, mut child: Child) -> Result<ExitStatus> {
        while self.more()? {}
        Ok(child.wait()?)
    }

    fn more(&mut self) -> Result<bool> {
        let mut bytes = [0; 4096];
        // Linux calls it a failure when nobody has the other side any more.
        let count = self.user.read(&mut bytes).unwrap_or(0);
        self.seen += &String::from_utf8_lossy(bytes.get(..count).unwrap_or_default());
        Ok(count > 0)
    }
}

async fn follows() -> Result<()> {
    let runtime = TempDir::new()?;
    let mut screen = Screen::new()?;
    let script = "trap 'echo caught; exit 3' INT; stty size; read line; echo \"read $line\"; \
                  while [ \"$(stty size)\" != '40 120' ]; do sleep 0.1; done; echo resized; \
                  while :; do sleep 0.1; done";
    let child = screen.start(&runtime, &["-it", "--", "sh", "-c", script])?;
    screen.wait_for("starting a VM")?;
    screen.wait_for("24 100")?;
    screen.user.write_all(b"typed\r")?;
    screen.wait_for("read typed")?;
    screen.resize(40, 120)?;
    screen.wait_for("resized")?;
    screen.user.write_all(b"\x03")?;
    screen.wait_for("caught")?;
    let status = screen.end(child)?;
    ensure!(status.code() == Some(3), "{status}: {}", screen.seen);
    nothing_in(runtime.path())
}

async fn given_up() -> Result<()> {
    let runtime = TempDir::new()?;
    let mut screen = Screen::new()?;
    let child = screen.start(&runtime, &["--", "sleep", "1000"])?;
    screen.wait_for("starting a VM")?;
    screen.user.write_all(b"\x03")?;
    let status = screen.end(child)?;
    ensure!(status.code() == Some(130), "{status}: {}", screen.seen);
    ensure!(
        screen.seen.contains("stopped by an interrupt"),
        "{}",
        screen.seen
    );
    nothing_in(runtime.path())
}
