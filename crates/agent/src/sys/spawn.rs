//! Starting a program without copying this process: the child borrows our memory until the program begins.
//!
//! A fork copies tables for all of our memory, and both sides then pay for each page that they touch; where
//! the processor is emulated that is most of what starting a small program costs.

use std::{
    ffi::{CString, c_char, c_int, c_void},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicI32, Ordering},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    process::{Gid, Pid, Resource, Rlimit, Uid},
    process::{chdir, ioctl_tiocsctty, setrlimit, setsid, umask},
    thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// Bytes of the child's stack until it has its own. It needs some hundreds.
const STACK: usize = 64 << 10;

/// What a process is given before its program begins.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// Whether its standard input becomes its controlling terminal.
    pub(crate) terminal: bool,
    /// Whom it runs as: user, group, and all groups.
    pub(crate) identity: Option<(Uid, Gid, Vec<Gid>)>,
    pub(crate) limits: Vec<(Resource, Rlimit)>,
    pub(crate) umask: Option<u32>,
    /// What is written to its `oom_score_adj`.
    pub(crate) oom_score_adj: Option<String>,
    pub(crate) no_new_privileges: bool,
}

/// A program to start.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its file; one without a slash at its beginning is looked for in `folder`.
    pub(crate) path: CString,
    /// Its arguments, its own name included.
    pub(crate) arguments: Vec<CString>,
    /// Its environment, each variable as `NAME=value`.
    pub(crate) environment: Vec<CString>,
    /// Its working directory.
    pub(crate) folder: CString,
    /// Its standard input, output and error; `None` is `/dev/null`.
    pub(crate) stdio: [Option<OwnedFd>; 3],
    pub(crate) surroundings: Surroundings,
}

/// Starts a program that leads a session of its own, with no signal blocked, and that is one that the
/// kernel may choose when memory runs out, unlike us. Whoever starts it waits for it.
pub(crate) fn spawn(program: &Program) -> io::Result<Pid> {
    let null = program.stdio.iter().any(Option::is_none).then(|| {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(c"/dev/null", flags, Mode::empty())
    });
    let null = null.transpose()?;
    let mut stdio = Vec::with_capacity(3);
    for stream in &program.stdio {
        let stream = stream.as_ref().or(null.as_ref()).ok_or(Errno::BADF)?;
        // Above the numbers that they get, none of them is written over.
        stdio.push(if stream.as_raw_fd() < 3 {
            Stream::Moved(rustix::io::fcntl_dupfd_cloexec(stream, 3)?)
        } else {
            Stream::Lent(stream.as_fd())
        });
    }
    let child = Child {
        program,
        stdio,
        arguments: pointers(&program.arguments),
        environment: pointers(&program.environment),
        errno: AtomicI32::new(0),
    };
    let mut stack: Vec<MaybeUninit<u8>> = Vec::with_capacity(STACK);
    let room = stack.spare_capacity_mut();
    let top = room.as_mut_ptr_range().end;
    // Downwards, to where a stack may begin.
    let top = top.wrapping_sub(top.addr() % 16).cast::<c_void>();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let blocked = Blocked::all()?;
    // SAFETY: the child runs `enter` on a stack of its own, of `STACK` bytes, and this thread stands still
    // until the child has ended or its program has begun: `child`, the stack and all that they point to
    // outlive it. It shares our memory, so that what `enter` may do is said there. It has its own copy of
    // descriptors, signal handlers, working directory and mask.
    let number = unsafe { libc::clone(enter, top, flags, (&raw const child).cast_mut().cast()) };
    let failure = io::Error::last_os_error();
    drop(blocked);
    let pid = Pid::from_raw(number)
        .filter(|_| number > 0)
        .ok_or(failure)?;
    match child.errno.load(Ordering::Relaxed) {
        0 => Ok(pid),
        errno => {
            // It has ended: its number is to be free.
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            Err(io::Error::from_raw_os_error(errno))
        }
    }
}

/// Pointers to the words, and a null.
fn pointers(words: &[CString]) -> Vec<*const c_char> {
    let words = words.iter().map(|word| word.as_ptr());
    words.chain([ptr::null()]).collect()
}

/// A descriptor that becomes one of the three.
enum Stream<'a> {
    Lent(BorrowedFd<'a>),
    Moved(OwnedFd),
}

impl AsFd for Stream<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Lent(stream) => *stream,
            Self::Moved(stream) => stream.as_fd(),
        }
    }
}

/// What the child is given. It borrows all of it.
struct Child<'a> {
    program: &'a Program,
    stdio: Vec<Stream<'a>>,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    /// Why the program did not begin.
    errno: AtomicI32,
}

/// Where the child begins. It shares the memory of a process with other threads, and its parent's thread
/// stands still in the middle of a call: from here on nothing may allocate, take a lock or unwind. Every
/// step is a plain system call on what was made before.
extern "C" fn enter(child: *mut c_void) -> c_int {
    // SAFETY: it is the `Child` that `spawn` lent, and `spawn` waits.
    let child = unsafe { &*child.cast::<Child<'_>>() };
    let Err(errno) = child.become_program();
    child.errno.store(errno.raw_os_error(), Ordering::Relaxed);
    127
}

impl Child<'_> {
    fn become_program(&self) -> Result<std::convert::Infallible, Errno> {
        let [stdin, stdout, stderr] = self.stdio.as_slice() else {
            return Err(Errno::BADF);
        };
        rustix::stdio::dup2_stdin(stdin)?;
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)?;
        chdir(self.program.folder.as_c_str())?;
        self.program.surroundings.take_on()?;
        // What we ignore it would ignore as well; handlers go by themselves.
        // SAFETY: the child's handlers are its own, and this one is the kernel's.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        Blocked::none()?;
        // SAFETY: the path ends with a zero byte, and both lists with a null.
        unsafe {
            libc::execve(
                self.program.path.as_ptr(),
                self.arguments.as_ptr(),
                self.environment.as_ptr(),
            );
        }
        Err(last_errno())
    }
}

impl Surroundings {
    /// Plain system calls alone, for one that shares its parent's memory. It has one thread, so that what
    /// is set for the thread is set for the process.
    fn take_on(&self) -> Result<(), Errno> {
        setsid()?;
        if self.terminal {
            ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let score = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty());
        match (&self.oom_score_adj, score) {
            (Some(adjustment), score) => {
                rustix::io::write(&score?, adjustment.as_bytes())?;
            }
            // Where ours cannot be given up, it was not had either.
            (None, Ok(score)) => {
                let _ = rustix::io::write(&score, b"0");
            }
            (None, Err(_)) => {}
        }
        // Limits may be raised by the one who starts it and not by everybody.
        for (resource, limit) in &self.limits {
            setrlimit(*resource, *limit)?;
        }
        if let Some(mask) = self.umask {
            umask(Mode::from_raw_mode(mask));
        }
        if let Some((user, group, groups)) = &self.identity {
            set_thread_groups(groups)?;
            set_thread_res_gid(*group, *group, *group)?;
            set_thread_res_uid(*user, *user, *user)?;
        }
        if self.no_new_privileges {
            set_no_new_privs(true)?;
        }
        Ok(())
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// This thread's signals are blocked until it is dropped: a handler of ours must not run in a child that
/// shares our memory.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn all() -> Result<Self, Errno> {
        let mut all = MaybeUninit::uninit();
        // SAFETY: the call fills the set.
        let all = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            all.assume_init()
        };
        set_mask(&all).map(Self)
    }

    /// Blocks nothing.
    fn none() -> Result<(), Errno> {
        let mut none = MaybeUninit::uninit();
        // SAFETY: the call fills the set.
        let none = unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            none.assume_init()
        };
        set_mask(&none).map(drop)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let _ = set_mask(&self.0);
    }
}

/// Sets the signals that this thread has blocked; gives those that it had.
fn set_mask(mask: &libc::sigset_t) -> Result<libc::sigset_t, Errno> {
    let mut before = MaybeUninit::uninit();
    // SAFETY: both sets are whole, and the call writes the second unless it fails.
    unsafe {
        match libc::pthread_sigmask(libc::SIG_SETMASK, mask, before.as_mut_ptr()) {
            0 => Ok(before.assume_init()),
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::CStr, io::Read as _};

    use rustix::process::{WaitOptions, waitpid};

    use super::*;

    fn program(script: &CStr) -> Program {
        Program {
            path: c"/bin/sh".to_owned(),
            arguments: vec![c"sh".to_owned(), c"-c".to_owned(), script.to_owned()],
            environment: vec![c"PATH=/usr/bin:/bin".to_owned(), c"A=b c".to_owned()],
            folder: c"/".to_owned(),
            stdio: [None, None, None],
            surroundings: Surroundings::default(),
        }
    }

    /// Runs it to its end: what it wrote, and its exit code.
    fn run(mut program: Program) -> (String, i32) {
        let (mut reader, writer) = io::pipe().unwrap();
        program.stdio[1] = Some(writer.into());
        let pid = spawn(&program).unwrap();
        drop(program);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        let status = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        (said, status.1.exit_status().unwrap())
    }

    #[test]
    fn a_process_leads_its_own_session() {
        let (said, _) = run(program(c"cat /proc/$$/stat | cut -d' ' -f1,6"));
        let (pid, session) = said.trim().split_once(' ').unwrap();
        assert_eq!(pid, session);
    }

    #[test]
    fn it_has_what_it_is_given() {
        let mut given = program(c"echo $A:$0:$PWD; exit 7");
        given.folder = c"/usr".to_owned();
        given.arguments.push(c"zero".to_owned());
        assert_eq!(run(given), ("b c:zero:/usr\n".to_owned(), 7));
    }

    #[test]
    fn it_has_each_stream_once() {
        let (mut reader, writer) = io::pipe().unwrap();
        let pipe = rustix::fs::fstat(&reader).unwrap().st_ino;
        let mut listing = program(c"ls -l /proc/$$/fd");
        listing.stdio[1] = Some(writer.into());
        let pid = spawn(&listing).unwrap();
        drop(listing);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        waitpid(Some(pid), WaitOptions::empty()).unwrap();
        assert_eq!(said.matches(&format!("pipe:[{pipe}]")).count(), 1, "{said}");
        assert!(said.matches("/dev/null").count() >= 2, "{said}");
    }

    #[test]
    fn it_blocks_no_signal_and_a_broken_pipe_ends_it() {
        let (said, _) = run(program(c"grep -E '^Sig(Blk|Ign)' /proc/self/status"));
        let masks: Vec<_> = said
            .split_whitespace()
            .filter_map(|word| u64::from_str_radix(word, 16).ok())
            .collect();
        let pipe = 1 << (libc::SIGPIPE - 1);
        assert!(masks[0] == 0 && masks[1] & pipe == 0, "{said}");
    }

    #[test]
    fn our_own_signals_are_as_before() {
        let blocked = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("SigBlk"));
            line.unwrap().to_owned()
        };
        let before = blocked();
        run(program(c"true"));
        assert_eq!(blocked(), before);
    }

    #[test]
    fn limits_and_the_mask_are_the_childs_alone() {
        let mut limited = program(c"ulimit -n; umask");
        let limit = Rlimit {
            current: Some(77),
            maximum: Some(77),
        };
        limited.surroundings.limits = vec![(Resource::Nofile, limit)];
        limited.surroundings.umask = Some(0o027);
        let ours = rustix::process::getrlimit(Resource::Nofile);
        assert_eq!(run(limited).0, "77\n0027\n");
        assert_eq!(rustix::process::getrlimit(Resource::Nofile), ours);
        assert_ne!(ours.current, Some(77));
    }

    #[test]
    fn why_it_did_not_begin_is_told_and_nothing_is_left_of_it() {
        let mut missing = program(c"");
        missing.path = c"/no/such".to_owned();
        assert_eq!(spawn(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
        let mut nowhere = program(c"");
        nowhere.folder = c"/no/such".to_owned();
        assert_eq!(spawn(&nowhere).unwrap_err().kind(), io::ErrorKind::NotFound);
        let mut plain = program(c"");
        plain.path = c"/etc/passwd".to_owned();
        assert_eq!(
            spawn(&plain).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
    }

    #[test]
    fn many_threads_start_programs_at_once() {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for turn in 0..20 {
                        let word = format!("{thread}.{turn}");
                        let script = CString::new(format!("echo {word}")).unwrap();
                        assert_eq!(run(program(&script)), (format!("{word}\n"), 0));
                    }
                });
            }
        });
    }
}
