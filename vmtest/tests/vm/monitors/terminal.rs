//! `opengcs exec -it` on a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail, ensure};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use tokio::process::Command;

use super::{SHARED, User, program};

/// A terminal, seen from its user's side.
struct Screen {
    user: File,
    /// The program's side stays open, so that what it was set to stays.
    side: OwnedFd,
    seen: String,
}

impl Screen {
    fn new() -> Result<Self> {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&user)?;
        unlockpt(&user)?;
        let path = ptsname(&user, Vec::new())?.into_string()?;
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let side = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
        let screen = Self {
            user: File::from(user),
            side,
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

    fn types(&mut self, keys: &[u8]) -> Result<()> {
        Ok(self.user.write_all(keys)?)
    }

    /// Waits until one of `words` is on the screen, and forgets what is there up to its end.
    fn wait_for_one<'a>(&mut self, words: &[&'a str]) -> Result<&'a str> {
        let mut bytes = [0; 4096];
        loop {
            let found = words
                .iter()
                .filter_map(|word| Some((self.seen.find(word)?, *word)))
                .min();
            if let Some((at, word)) = found {
                self.seen.drain(..at + word.len());
                return Ok(word);
            }
            let count = self.user.read(&mut bytes)?;
            ensure!(count > 0, "{words:?} never came: {}", self.seen);
            self.seen += &String::from_utf8_lossy(&bytes[..count]);
        }
    }

    fn wait_for(&mut self, word: &str) -> Result<()> {
        self.wait_for_one(&[word]).map(drop)
    }

    fn modes(&self) -> Result<String> {
        Ok(format!("{:?}", tcgetattr(&self.side)?))
    }
}

pub(super) async fn terminal() -> Result<()> {
    let user = User::of_shared_vm().await?;
    let mut screen = Screen::new()?;
    let before = screen.modes()?;
    // The terminal becomes the program's own, as at a login: then it is told of a new size.
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(program()?);
    command.args(["exec", "-it", SHARED, "--", "sh"]);
    user.surround(&mut command);
    let side = || screen.side.try_clone();
    let mut child = command
        .stdin(side()?)
        .stdout(side()?)
        .stderr(side()?)
        .spawn()?;

    screen.types(b"stty size\r")?;
    screen.wait_for("24 100")?;
    ensure!(screen.modes()? != before, "the terminal is not raw");
    screen.resize(30, 90)?;
    // The new size is on its way; what is typed may overtake it.
    for _ in 0..100 {
        screen.types(b"stty size\r")?;
        if screen.wait_for_one(&["30 90", "24 100"])? == "30 90" {
            break;
        }
    }
    screen.types(b"stty size\r")?;
    screen.wait_for("30 90")?;

    // What is typed is seen too; it has quotes in it, and what comes of it has not.
    screen.types(b"sh -c 'echo re''ady; exec sleep 1006'\r")?;
    screen.wait_for("ready\r\n")?;
    screen.types(b"\x03")?;
    screen.types(b"echo after=$?\r")?;
    screen.wait_for("after=130")?;

    screen.types(b"echo go''ne; exec sleep 1007\r")?;
    screen.wait_for("gone\r\n")?;
    screen.types(b"\x10\x11")?;
    screen.wait_for("detached: process ")?;
    let status = child.wait().await?;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(
        screen.modes()? == before,
        "{before} became {}",
        screen.modes()?
    );

    let shown = user.json(&["vm", "inspect", SHARED, "--json"]).await?;
    let processes = shown["processes"].as_array().context("no list")?;
    let left = processes
        .iter()
        .find(|one| one["detached"] == true && one["terminal"] == true);
    let Some(left) = left else {
        bail!("not left: {shown}")
    };
    let id = left["id"].to_string();
    let listed = user
        .ok(&["exec", SHARED, "--", "ps", "-o", "pid,args"])
        .await?;
    ensure!(listed.contains("sleep 1007"), "{listed}");
    user.ok(&["exec", SHARED, "--", "kill", "-KILL", &id])
        .await?;
    user.process_goes(SHARED, "sh").await
}
