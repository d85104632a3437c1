//! How work on the guest's parts, which mostly waits for programs of the host, is given up.

use std::cell::RefCell;
use std::io::{self, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// How long a program runs before it is asked for whether it is to go on.
const LOOK: Duration = Duration::from_millis(50);

thread_local! {
    /// Every step below is of one thread, and few of them know who began.
    static FLAG: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Does `work`, getting a kernel or building what a VM boots from, so that it ends soon after `flag`
/// is set: a program that is being waited for is killed, and the work fails with
/// [`ErrorKind::Cancelled`], leaving everything as it was.
///
/// ```
/// use std::sync::{Arc, atomic::AtomicBool};
/// use opengcs::guest::{cancel_with, kernel};
/// let folder = tempfile::tempdir()?;
/// let stop = Arc::new(AtomicBool::new(true));
/// let source = kernel::KernelSource::Package("linux-image-cloud-amd64".into());
/// let failed = cancel_with(stop, || kernel::install(&source, folder.path()));
/// assert_eq!(failed.unwrap_err().kind(), opengcs::ErrorKind::Cancelled);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn cancel_with<T>(flag: Arc<AtomicBool>, work: impl FnOnce() -> T) -> T {
    /// Puts back what was there, also after a panic.
    struct Before(Option<Arc<AtomicBool>>);
    impl Drop for Before {
        fn drop(&mut self) {
            FLAG.set(self.0.take());
        }
    }
    let _before = Before(FLAG.replace(Some(flag)));
    work()
}

/// Fails if the work has been given up.
pub(super) fn check() -> Result<()> {
    let flag = FLAG.with_borrow(Clone::clone);
    if flag.is_some_and(|flag| flag.load(Ordering::Acquire)) {
        return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
    }
    Ok(())
}

/// Runs a program to its end, and takes what it prints; `Ok(None)` when the work was given up and the
/// program killed.
pub(super) fn output(command: &mut Command) -> io::Result<Option<Output>> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if check().is_err() {
            kill(&mut child);
            return Ok(None);
        }
        match child.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(LOOK);
    };
    let take = |thread: std::thread::JoinHandle<io::Result<Vec<u8>>>| {
        thread.join().unwrap_or_else(|_| Ok(Vec::new()))
    };
    Ok(Some(Output {
        status,
        stdout: take(stdout)?,
        stderr: take(stderr)?,
    }))
}

fn kill(child: &mut Child) {
    // One that has just ended cannot be killed, and need not be.
    let _ = child.kill();
    let _ = child.wait();
}

fn collect<R: Read + Send + 'static>(
    stream: Option<R>,
) -> std::thread::JoinHandle<io::Result<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}
