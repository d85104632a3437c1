//! The end of the machine: processes, file systems, power.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::sync,
    mount::{MountFlags, UnmountFlags, mount_remount, unmount},
    process::{Pid, Signal, kill_process},
    system::{RebootCommand, reboot},
};

use super::{mounts::Mounted, processes::Processes};
use crate::log;

/// How long processes have between `SIGTERM` and `SIGKILL`.
const GRACE: Duration = Duration::from_millis(300);

/// How long killed processes have to be gone.
const GONE: Duration = Duration::from_millis(300);

/// What a shutdown ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Power {
    /// The whole machine.
    Machine,
    /// This process and those that it has started.
    Process,
}

impl Power {
    /// Ends it. `parting` is called when everything but the last step is done.
    pub(super) fn off(self, processes: &Processes, graceful: bool, parting: impl FnOnce()) {
        log::stage(format_args!("shutting down"));
        match self {
            Self::Process => {
                for pid in processes.running() {
                    let _ = processes.signal(None, pid, Signal::KILL.as_raw());
                }
                parting();
                std::process::exit(0);
            }
            Self::Machine => {
                end_processes(graceful);
                sync();
                unmount_all();
                sync();
                parting();
                log::console(format_args!("power off"));
                if let Err(error) = reboot(RebootCommand::PowerOff) {
                    log::console(format_args!("power off: {error}"));
                }
                // A machine that cannot be switched off can be restarted; ours ends then, too.
                let _ = reboot(RebootCommand::Restart);
            }
        }
    }
}

/// Ends every process but this one, PID 1 and the kernel's.
fn end_processes(graceful: bool) {
    if graceful && !others().is_empty() {
        signal_all(Signal::TERM);
        wait_until_alone(GRACE);
    }
    if !others().is_empty() {
        signal_all(Signal::KILL);
        wait_until_alone(GONE);
    }
}

fn signal_all(signal: Signal) {
    for pid in others() {
        let _ = kill_process(pid, signal);
    }
}

fn wait_until_alone(limit: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < limit && !others().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn others() -> Vec<Pid> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let number: i32 = entry.file_name().to_str()?.parse().ok()?;
            // Neither the kernel's threads nor what has ended already have a program.
            let has_program = fs::read_link(entry.path().join("exe")).is_ok();
            (number != own && number != 1 && has_program).then(|| Pid::from_raw(number))?
        })
        .collect()
}

fn unmount_all() {
    let mut mounts = Mounted::read().unwrap_or_default();
    mounts.reverse();
    let kept = ["/proc", "/sys", "/dev"];
    for mounted in mounts {
        let point = &mounted.point;
        if point == Path::new("/") {
            let _ = mount_remount(point, MountFlags::RDONLY, c"");
        } else if !kept.iter().any(|kept| point.starts_with(kept))
            && unmount(point, UnmountFlags::NOFOLLOW).is_err()
        {
            let _ = mount_remount(point, MountFlags::RDONLY, c"");
            let _ = unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}
