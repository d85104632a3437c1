//! PID 1: makes the machine fit to live in, starts the server as a child, and then only reaps.
//!
//! The server is a process of its own because it waits for its children by number: were it PID 1,
//! reaping orphans would take exit codes from under it.

mod hypervisor;
mod loopback;
mod modules;
mod root;

use std::{
    fs,
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    fs::{Mode, OFlags, sync},
    io::Errno,
    mount::{MountFlags, mount},
    process::{WaitOptions, setpriority_process, wait},
    system::{RebootCommand, reboot, sethostname},
};

use crate::log;
use hypervisor::Hypervisor;

/// The level of the server's log, from the kernel's command line: `gcs.log=debug`. The kernel
/// gives words with a dot to nobody, so they are read from `/proc/cmdline`.
const LOG_LEVEL: &str = "gcs.log";

/// The name of the machine: `gcs.hostname=…`.
const HOST_NAME: &str = "gcs.hostname";

/// The file system to go on with, where the machine boots from a disk: `root=UUID=…`.
const ROOT: &str = "root";

/// Passes the log's level to the server.
pub(crate) const LOG_VARIABLE: &str = "GCS_LOG";

/// Tells the server that modules are still being loaded until its standard input ends.
pub(crate) const MODULES_VARIABLE: &str = "GCS_MODULES";

/// The niceness of what nobody waits for.
const BEHIND_OTHERS: i32 = 19;

/// What is mounted: type, path, flags, options. All but the first four may fail.
fn mounts() -> [(
    &'static str,
    &'static str,
    MountFlags,
    &'static std::ffi::CStr,
); 9] {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let device = MountFlags::NOSUID | MountFlags::NOEXEC;
    let files = MountFlags::NOSUID | MountFlags::NODEV;
    [
        ("proc", "/proc", plain, c""),
        ("sysfs", "/sys", plain, c""),
        ("devtmpfs", "/dev", device, c"mode=0755"),
        ("tmpfs", "/run", files, c"mode=0755"),
        (
            "devpts",
            "/dev/pts",
            device,
            c"mode=0620,gid=5,ptmxmode=0666",
        ),
        ("tmpfs", "/dev/shm", files, c"mode=1777"),
        ("mqueue", "/dev/mqueue", plain, c""),
        ("tmpfs", "/tmp", files, c"mode=1777"),
        ("cgroup2", "/sys/fs/cgroup", plain, c""),
    ]
}

/// Runs as PID 1: never returns when it is.
///
/// # Errors
/// When it is not PID 1.
pub fn run() -> Result<(), String> {
    if std::process::id() != 1 {
        return Err("init is only run as PID 1".to_owned());
    }
    let failed_mounts = mount_all();
    console_as_stdio();
    log::console(format_args!("init"));
    for failure in failed_mounts {
        log::console(format_args!("{failure}"));
    }
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let hypervisor = Hypervisor::here();
    let mut loaded = modules::load(modules::FIRST, hypervisor);
    let root_wanted = option(&command_line, ROOT);
    if root_wanted.is_some() {
        loaded += modules::load(modules::LATER, hypervisor);
    }
    log::console(format_args!("{loaded} modules loaded"));
    if let Some(wanted) = root_wanted {
        match root::wanted(wanted).and_then(root::switch) {
            Ok(()) => log::console(format_args!("root mounted")),
            // The tools are missing then, and the agent serves: that is more than nothing.
            Err(error) => log::console(format_args!("root not mounted: {error}")),
        }
    }
    let why = serve(option(&command_line, LOG_LEVEL), || {
        name_and_loopback(&command_line);
        modules::load(modules::LATER, hypervisor)
    });
    log::console(format_args!("the agent has ended ({why}): power off"));
    sync();
    let _ = reboot(RebootCommand::PowerOff);
    let _ = reboot(RebootCommand::Restart);
    // The kernel panics when PID 1 returns, which ends the machine as well.
    Err(why)
}

/// Gives the machine its name and a network of its own.
fn name_and_loopback(command_line: &str) {
    let name = option(command_line, HOST_NAME).unwrap_or("opengcs");
    if let Err(error) = sethostname(name.as_bytes()) {
        log::console(format_args!("host name {name}: {error}"));
    }
    if let Err(error) = loopback::up() {
        log::console(format_args!("loopback: {error}"));
    }
}

fn mount_all() -> Vec<String> {
    let mut failures = Vec::new();
    for (filesystem, path, flags, options) in mounts() {
        if !Path::new(path).exists()
            && let Err(error) = fs::create_dir_all(path)
        {
            failures.push(format!("make {path}: {error}"));
            continue;
        }
        match mount(filesystem, path, filesystem, flags, options) {
            // The kernel may have mounted /dev itself.
            Ok(()) | Err(Errno::BUSY) => {}
            // A kernel without message queues or control groups is still a machine.
            Err(Errno::NODEV) => {}
            Err(error) => failures.push(format!("mount {filesystem} at {path}: {error}")),
        }
    }
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        let _ = std::os::unix::fs::symlink(target, link);
    }
    failures
}

/// The console becomes stdio: a kernel whose initrd has no `/dev/console` gives PID 1 none.
fn console_as_stdio() {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let opened = ["/dev/console", "/dev/null"]
        .into_iter()
        .find_map(|path| rustix::fs::open(path, flags, Mode::empty()).ok());
    let Some(opened) = opened else { return };
    let console = opened.as_fd();
    let _ = rustix::stdio::dup2_stdin(console);
    let _ = rustix::stdio::dup2_stdout(console);
    let _ = rustix::stdio::dup2_stderr(console);
}

/// The value of `name=value` among the words of the kernel's command line; the last one counts.
fn option<'a>(command_line: &'a str, name: &str) -> Option<&'a str> {
    command_line
        .split_whitespace()
        .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .next_back()
        .filter(|value| !value.is_empty())
}

/// Runs the server, does the `rest` that a machine needs while it dials (loads the modules that are left, and
/// tells how many), and reaps orphans until the server has ended; tells how it did.
fn serve(log_level: Option<&str>, rest: impl FnOnce() -> usize) -> String {
    let mut command = Command::new("/proc/self/exe");
    command.arg("serve").env_clear().current_dir("/");
    // Its end tells the server that everything is there.
    let mut rest = Some(rest);
    let loading = match std::io::pipe() {
        Ok((told, loading)) => {
            command.stdin(told).env(MODULES_VARIABLE, "follow");
            Some(loading)
        }
        Err(_) => {
            command.stdin(Stdio::null());
            rest.take().map(|rest| rest());
            None
        }
    };
    if let Some(level) = log_level {
        command.env(LOG_VARIABLE, level);
    }
    let server = match command.spawn() {
        Ok(child) => {
            spare(child.id());
            i32::try_from(child.id()).unwrap_or(0)
        }
        Err(error) => return format!("not started: {error}"),
    };
    // The command holds the other end, which is not ours to keep.
    drop(command);
    if let (Some(loading), Some(rest)) = (loading, rest) {
        // The server is to have the processor when it wants it: somebody waits for the bridge.
        let _ = setpriority_process(None, BEHIND_OTHERS);
        let loaded = rest();
        let _ = setpriority_process(None, 0);
        drop(loading);
        if loaded > 0 {
            log::console(format_args!("{loaded} more modules"));
        }
    }
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == server => {
                return match status.terminating_signal() {
                    Some(signal) => format!("signal {signal}"),
                    None => format!("exit code {}", status.exit_status().unwrap_or(-1)),
                };
            }
            // An orphan.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return format!("wait: {error}"),
        }
    }
}

/// Keeps the kernel from choosing the server when memory runs out: what it serves goes first. Processes
/// that it starts give that up ([`crate::sys::surround`]).
fn spare(server: u32) {
    if let Err(error) = fs::write(format!("/proc/{server}/oom_score_adj"), "-1000") {
        log::console(format_args!(
            "the server is not spared in need of memory: {error}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_from_the_command_line() {
        let line = "console=ttyS0 gcs.log=info panic=-1 gcs.log=debug gcs.logx=y gcs.hostname=";
        assert_eq!(option(line, LOG_LEVEL), Some("debug"));
        assert_eq!(option(line, HOST_NAME), None);
        assert_eq!(option("", LOG_LEVEL), None);
    }
}
