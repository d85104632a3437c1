//! Whether there is a QEMU, which, and whether it has the devices that VMs are made of.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Check, INSTALL_QEMU, NAME_OF_HYPERVISOR, Outcome, in_path};
use crate::config::Config;

/// How long the program may take to answer; it takes well under a second.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

const DEVICES: &str = "devices";
/// Without one of these no VM starts.
const NEEDED: [&str; 3] = ["vhost-user-vsock-pci", "virtio-scsi-pci", "scsi-hd"];
/// The machine type that boots fastest, and the one that stands in for it.
const MACHINES: [&str; 2] = ["microvm", "q35"];
/// The oldest version that the tests run with.
const TRIED: (u32, u32) = (7, 2);

/// The program, and what it can do.
pub(super) fn checks(config: &Config) -> Vec<Check> {
    let bad = |found: String| {
        vec![Check::with(
            NAME_OF_HYPERVISOR,
            Outcome::Bad,
            found,
            INSTALL_QEMU,
        )]
    };
    let program = match &config.hypervisor {
        Some(path) => Some(path.clone()),
        None => in_path(&config.environment, "qemu-system-x86_64"),
    };
    let Some(program) = program else {
        return bad("no qemu-system-x86_64 is in PATH".to_owned());
    };
    match ask(&program, &["--version"]) {
        Ok(text) => vec![version(&program, &text), devices(&program)],
        Err(why) => bad(why),
    }
}

/// What the program prints when it is asked for something.
fn ask(program: &Path, arguments: &[&str]) -> Result<String, String> {
    ask_within(program, arguments, PATIENCE)
}

fn ask_within(program: &Path, arguments: &[&str], patience: Duration) -> Result<String, String> {
    let name = program.display();
    let cannot = |error: io::Error| format!("cannot run {name}: {error}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(cannot)?;
    let until = Instant::now() + patience;
    let (sender, printed) = mpsc::channel();
    let stdout = child.stdout.take();
    // It is not waited for: something else that the program has started may keep its output open.
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut text));
        let _ = sender.send(read.map(|_| text));
    });
    let printed = printed.recv_timeout(patience);
    let ended = loop {
        match child.try_wait().map_err(cannot)? {
            Some(status) => break Some(status),
            None if printed.is_err() || Instant::now() >= until => break None,
            None => std::thread::sleep(PAUSE),
        }
    };
    let asked = arguments.join(" ");
    match (printed, ended) {
        (Ok(text), Some(status)) if status.success() => {
            Ok(String::from_utf8_lossy(&text.map_err(cannot)?).into_owned())
        }
        (_, Some(status)) if !status.success() => Err(format!("{name} {asked} failed: {status}")),
        _ => {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            Err(format!(
                "{name} {asked} did not answer within {} s",
                patience.as_secs()
            ))
        }
    }
}

fn version(program: &Path, text: &str) -> Check {
    let line = text.lines().next().unwrap_or_default().trim();
    let found = format!("{line} ({})", program.display());
    match number(line) {
        Some(version) if version < TRIED => Check::with(
            NAME_OF_HYPERVISOR,
            Outcome::Fair,
            found,
            format!(
                "it is older than {}.{}, the oldest that is tried",
                TRIED.0, TRIED.1
            ),
        ),
        _ => Check::good(NAME_OF_HYPERVISOR, found),
    }
}

/// Major and minor version in "QEMU emulator version 7.2.1 (…)".
fn number(line: &str) -> Option<(u32, u32)> {
    let (_, rest) = line.split_once("version ")?;
    let mut parts = rest.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn devices(program: &Path) -> Check {
    let listed = ask(program, &["-M", "none", "-device", "help"])
        .and_then(|devices| Ok((devices, ask(program, &["-M", "help"])?)));
    let (devices, machines) = match listed {
        Ok(found) => found,
        Err(why) => return Check::with(DEVICES, Outcome::Bad, why, INSTALL_QEMU),
    };
    let missing: Vec<_> = NEEDED
        .into_iter()
        .filter(|name| !devices.contains(&format!("\"{name}\"")))
        .collect();
    if !missing.is_empty() {
        let found = format!("this QEMU has no {}", missing.join(", no "));
        return Check::with(DEVICES, Outcome::Bad, found, INSTALL_QEMU);
    }
    let has: Vec<_> = MACHINES
        .into_iter()
        .filter(|name| {
            machines
                .lines()
                .any(|line| line.split(' ').next() == Some(*name))
        })
        .collect();
    let found = format!("{}; machines {}", NEEDED.join(", "), has.join(", "));
    match has.as_slice() {
        [] => Check::with(
            DEVICES,
            Outcome::Bad,
            "this QEMU has neither the machine microvm nor q35",
            INSTALL_QEMU,
        ),
        ["q35"] => Check::with(
            DEVICES,
            Outcome::Fair,
            found,
            "a QEMU with the machine microvm boots VMs faster",
        ),
        _ => Check::good(DEVICES, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)] // A shell script stands for QEMU.
    #[test]
    fn one_that_does_not_answer_is_told_as_such() {
        let ask = |script| {
            let patience = Duration::from_millis(500);
            ask_within(Path::new("/bin/sh"), &["-c", script], patience)
        };
        let began = Instant::now();
        let silent = ask("exec sleep 60").unwrap_err();
        assert!(silent.contains("did not answer within"), "{silent}");
        let deaf = ask("exec >&-; exec sleep 60").unwrap_err();
        assert!(deaf.contains("did not answer within"), "{deaf}");
        assert!(began.elapsed() < Duration::from_secs(30));
        assert_eq!(ask("echo 7.2"), Ok("7.2\n".to_owned()));
        assert!(ask("exit 3").unwrap_err().contains("failed"));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let line = "QEMU emulator version 7.2.15 (Debian 1:7.2+dfsg-7)";
        assert_eq!(number(line), Some((7, 2)));
        assert_eq!(number("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert!(number("QEMU emulator version 10.0.2") > Some(TRIED));
        assert_eq!(number("something else"), None);
        let old = version(Path::new("/q"), "QEMU emulator version 5.2.0");
        assert_eq!(old.outcome, Outcome::Fair);
        assert!(old.hint.is_some());
    }
}
