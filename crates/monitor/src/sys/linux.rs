//! Locks, sockets, sessions and processes as Linux has them.
#![allow(
    unsafe_code,
    reason = "open files that others have left to this process are known by their numbers alone"
)]

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};

use crate::error::Result;
use crate::proto::HostUse;

/// The name of the socket in a VM's folder.
const SOCKET: &str = "monitor.sock";

/// A connection between a client and a monitor.
pub(crate) type Socket = UnixStream;

/// VMs can outlive the command here.
#[allow(clippy::unnecessary_wraps, reason = "it fails elsewhere")]
pub(crate) fn supported() -> Result<()> {
    Ok(())
}

/// Where this user's VMs have their folders: in the user's runtime folder, or else in a folder of the
/// user's own among the temporary files.
pub(crate) fn runtime_folder(user: Option<PathBuf>) -> PathBuf {
    match user {
        Some(folder) => folder.join("opengcs"),
        None => {
            let user = rustix::process::geteuid().as_raw();
            std::env::temp_dir().join(format!("opengcs-{user}"))
        }
    }
}

/// Makes a folder that only its owner can enter, or sees that the one there is such a folder.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = std::fs::symlink_metadata(path)?;
    let user = rustix::process::geteuid().as_raw();
    let problem = if !found.is_dir() {
        "it is no folder".to_owned()
    } else if found.uid() != user {
        format!("it belongs to user {}, and not to {user}", found.uid())
    } else if found.mode() & 0o077 != 0 {
        format!(
            "others can enter it: its mode is {:04o}, and not 0700",
            found.mode() & 0o7777
        )
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

/// Whether `path` is a folder of this user's, and no link to one.
pub(crate) fn is_own_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::geteuid().as_raw())
}

/// Whether an open file is still the one at `path`.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// A lock on a folder. The kernel takes it away when its holder ends, however that is.
#[derive(Debug)]
pub(crate) struct Lock {
    _folder: OwnedFd,
}

fn open_folder(path: &Path, how: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | how;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Locks a folder; `None` when another has it.
pub(crate) fn lock_folder(path: &Path) -> io::Result<Option<Lock>> {
    let folder = open_folder(path, OFlags::RDONLY)?;
    loop {
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(Lock { _folder: folder })),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The path of a folder's socket by the open folder: paths of sockets have no more than 107 bytes.
fn socket_in(folder: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()).into()
}

/// Accepts clients.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
}

impl Listener {
    /// Listens in a folder that others cannot enter. What was listened to there before is gone.
    pub(crate) fn bind(folder: &Path) -> io::Result<Self> {
        let open = open_folder(folder, OFlags::PATH)?;
        let path = socket_in(&open);
        let socket = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { socket })
    }

    /// Waits for a client.
    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        self.socket.accept().await.map(|(socket, _)| socket)
    }
}

/// Removes a folder's socket.
pub(crate) fn remove_socket(folder: &Path) -> io::Result<()> {
    match std::fs::remove_file(folder.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Connects to whoever listens in a folder.
pub(crate) async fn connect(folder: &Path) -> io::Result<Socket> {
    let open = open_folder(folder, OFlags::PATH)?;
    UnixStream::connect(socket_in(&open)).await
}

/// The process that listens at the other end of a connection.
pub(crate) fn peer(socket: &Socket) -> Option<u32> {
    let process = socket.peer_cred().ok()?.pid()?;
    u32::try_from(process).ok().filter(|process| *process > 0)
}

/// Kills the process that listens in a folder, and no other that may have its number meanwhile.
pub(crate) async fn kill_listener(folder: &Path) -> io::Result<()> {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let unknown = || io::Error::other("its process cannot be told from here");
    let listener = peer(&connect(folder).await?).ok_or_else(unknown)?;
    let pid = i32::try_from(listener).ok().and_then(Pid::from_raw);
    let process = pidfd_open(pid.ok_or_else(unknown)?, PidfdFlags::empty())?;
    // Whoever listens now was there when the process was opened.
    if peer(&connect(folder).await?) != Some(listener) {
        return Err(unknown());
    }
    Ok(pidfd_send_signal(&process, Signal::KILL)?)
}

/// Has programs that are started from now on inherit no open file but stdin, stdout and stderr. What the
/// shell of a script has open (a lock, a pipe that somebody reads to its end) must not live on in a monitor.
pub(crate) fn inherit_nothing() {
    const STDERR: i32 = 2;
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    for entry in entries.flatten() {
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|number| *number > STDERR) else {
            continue;
        };
        // SAFETY: the number is used for one system call, which fails when it is no longer open, and
        // changes a flag that all files of this program have by themselves.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = rustix::io::fcntl_setfd(file, rustix::io::FdFlags::CLOEXEC);
    }
}

/// Leaves the session of the terminal: what happens to it is nothing to this process any more.
pub(crate) fn begin_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Closes the streams to whoever started this process.
pub(crate) fn leave_starter() -> io::Result<()> {
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    Ok(())
}

/// Has everything that this process says on stderr go to a file.
pub(crate) fn log_to(file: &impl AsFd) -> io::Result<()> {
    rustix::stdio::dup2_stderr(file)?;
    Ok(())
}

/// What a process uses.
pub(crate) fn host_use(process: u32) -> Option<HostUse> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}"));
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    parse_use(&read("status").ok()?, &read("stat").ok()?, ticks_per_second)
}

fn parse_use(status: &str, stat: &str, ticks_per_second: u64) -> Option<HostUse> {
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    // The name in parentheses may have anything in it, even more of them.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let both = ticks()?.checked_add(ticks()?)?;
    let tick = 1_000_000_000_u64.checked_div(ticks_per_second)?;
    Some(HostUse {
        memory: kib.checked_mul(1024)?,
        processor_ns: both.checked_mul(tick)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t3\n";
        let stat = "12 (a) b) (c) S 1 12 12 0 -1 4194304 100 0 0 0 150 50 7 8 20 0 3 0 99";
        let found = parse_use(status, stat, 100).unwrap();
        assert_eq!((found.memory, found.processor_ns), (2 << 20, 2_000_000_000));
        for (status, stat) in [
            ("", stat),
            (status, ""),
            (status, "1 (a) S 1"),
            ("VmRSS: x", stat),
        ] {
            assert!(parse_use(status, stat, 100).is_none());
        }
        assert!(host_use(std::process::id()).unwrap().memory > 0);
    }

    #[test]
    fn what_a_shell_has_left_open_is_not_handed_on() {
        use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
        let file = tempfile::tempfile().unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        inherit_nothing();
        assert_eq!(fcntl_getfd(&file).unwrap(), FdFlags::CLOEXEC);
        assert_eq!(fcntl_getfd(io::stderr()).unwrap(), FdFlags::empty());
    }

    #[test]
    fn a_folder_that_others_can_enter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("private");
        make_private(&path).unwrap();
        make_private(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        let error = make_private(&path).unwrap_err();
        assert!(error.to_string().contains("0750"), "{error}");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(make_private(&link).is_err() && !is_own_folder(&link));
    }
}
