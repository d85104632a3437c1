//! A VM in memory, and what its processes do.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opengcs::machine::Description;
use opengcs::{Attachment, BootMode, GuestMetrics, HotAdd, ProcessSpec, Stopped};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tonic::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::vm::{Control, Input, Output, Process, Vm};

/// What happens to the VM, and what was asked of it.
#[derive(Clone)]
struct Life {
    /// Why it has ended.
    end: watch::Sender<Option<String>>,
    signals: Arc<Mutex<Vec<i32>>>,
    written: Arc<AtomicUsize>,
}

/// A VM with three programs: `cat`, which also says "over" and exits with 7; `deaf`, which reads one byte
/// and no more; `endless`, which writes for ever. Any signal ends them.
pub(super) struct Fake {
    life: Life,
    graces: Mutex<Vec<Duration>>,
    next: AtomicU32,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            life: Life {
                end: watch::Sender::new(None),
                signals: Arc::default(),
                written: Arc::default(),
            },
            graces: Mutex::default(),
            next: AtomicU32::new(100),
        }
    }
}

impl Fake {
    pub(super) fn signals(&self) -> Vec<i32> {
        self.life.signals.lock().unwrap().clone()
    }

    pub(super) fn graces(&self) -> Vec<Duration> {
        self.graces.lock().unwrap().clone()
    }

    /// Bytes that `endless` got rid of.
    pub(super) fn written(&self) -> usize {
        self.life.written.load(Ordering::Relaxed)
    }

    pub(super) fn die(&self, why: &str) {
        self.life.end.send_replace(Some(why.to_owned()));
    }
}

fn not_here<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "this VM is in memory"))
}

#[async_trait]
impl Vm for Fake {
    fn describe(&self) -> Description {
        Description::new("memory", "none", "it is a test", "none")
    }

    fn boot_mode(&self) -> BootMode {
        BootMode::KernelInitrd
    }

    fn disks(&self) -> Vec<Attachment> {
        Vec::new()
    }

    async fn add_disk(&self, _: HotAdd) -> Result<Attachment> {
        not_here()
    }

    async fn remove_disk(&self, _: &Path) -> Result<()> {
        not_here()
    }

    async fn start_process(&self, spec: ProcessSpec) -> Result<Box<dyn Process>> {
        let said = format!("{spec:?}");
        let program = ["cat", "deaf", "endless"]
            .into_iter()
            .find(|program| said.contains(&format!("{program:?}")))
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no such program"))?;
        Ok(Box::new(Running {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            program,
            signal: watch::Sender::new(0),
            life: self.life.clone(),
        }))
    }

    async fn statistics(&self) -> Result<Option<GuestMetrics>> {
        Ok(None)
    }

    async fn debug(&self) -> String {
        "==== VM\nin memory\n".into()
    }

    fn write_bundle(&self, folder: &Path) -> Result<PathBuf> {
        Ok(folder.join("bundle"))
    }

    async fn stop(&self, grace: Duration) -> Result<Stopped> {
        self.graces.lock().unwrap().push(grace);
        self.die("stopped");
        Ok(Stopped::Gracefully)
    }

    async fn terminate(&self) {
        self.die("terminated");
    }

    async fn wait(&self) -> String {
        let mut end = self.life.end.subscribe();
        let end = end.wait_for(Option::is_some).await.unwrap();
        end.clone().unwrap()
    }
}

struct Running {
    id: u32,
    program: &'static str,
    signal: watch::Sender<i32>,
    life: Life,
}

#[async_trait]
impl Process for Running {
    fn id(&self) -> u32 {
        self.id
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::new(Handle {
            signal: self.signal.clone(),
            signals: Arc::clone(&self.life.signals),
        })
    }

    async fn run(self: Box<Self>, input: Input, output: Output, errors: Output) -> Result<u32> {
        let mut signal = self.signal.subscribe();
        let mut end = self.life.end.subscribe();
        let work = work(self.program, input, output, errors, &self.life.written);
        tokio::select! {
            code = work => Ok(code),
            signal = signal.wait_for(|signal| *signal != 0) => {
                Ok(128 + u32::try_from(*signal.unwrap()).unwrap())
            }
            _ = end.wait_for(Option::is_some) => Err(Error::new(ErrorKind::Ended, "the VM has ended")),
        }
    }
}

async fn work(
    program: &str,
    mut input: Input,
    mut output: Output,
    mut errors: Output,
    written: &AtomicUsize,
) -> u32 {
    match program {
        "cat" => {
            tokio::io::copy(&mut input, &mut output).await.unwrap();
            errors.write_all(b"over\n").await.unwrap();
            7
        }
        "endless" => loop {
            let count = output.write(&[0; 64 << 10]).await.unwrap();
            written.fetch_add(count, Ordering::Relaxed);
        },
        _ => {
            let _ = input.read(&mut [0]).await;
            std::future::pending().await
        }
    }
}

struct Handle {
    signal: watch::Sender<i32>,
    signals: Arc<Mutex<Vec<i32>>>,
}

#[async_trait]
impl Control for Handle {
    async fn signal(&self, signal: i32) -> Result<()> {
        self.signals.lock().unwrap().push(signal);
        self.signal.send_replace(signal);
        Ok(())
    }

    async fn resize(&self, _: u16, _: u16) -> Result<()> {
        not_here()
    }

    async fn kill(&self) -> Result<()> {
        self.signal(9).await
    }
}
