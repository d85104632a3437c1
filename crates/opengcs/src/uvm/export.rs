//! Conversions beside a VM: natively, except for a sandbox that the VM is writing to.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use opengcs_layer::{Control, TarToDiskOptions};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::io::SyncIoBridge;

use super::copy::DataLog;
use super::process::read_bounded;
use super::{GuestPlace, Process, ProcessSpec, UtilityVm};
use crate::config::check_guest_path;
use crate::convert::{self, CHUNK, Chunk, DEPTH};
use crate::error::{Error, ErrorKind, Result};

/// How much of a tool's messages is kept for the error.
const MESSAGES: usize = 16 << 10;

impl UtilityVm {
    /// Writes a tar stream as an ext4 file system in a fixed VHD, as
    /// [`tar_to_vhd`](crate::tar_to_vhd) does; the VM is not needed for it and not asked. A reader
    /// that gives nothing for longer than the VM's timeout fails it. Dropping the future cancels it,
    /// and no file appears.
    ///
    /// # Errors
    /// As there, and [`ErrorKind::Timeout`].
    #[doc(alias = "TarToVhd")]
    pub async fn tar_to_vhd(
        &self,
        target: impl AsRef<Path>,
        reader: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<u64> {
        let target = target.as_ref().to_owned();
        let guard = CancelOnDrop::default();
        let mut options = TarToDiskOptions::default();
        options.ext4.control = Control::new().cancel_with(guard.flag());
        let limit = self.inner.timeout();
        let reader = SyncIoBridge::new(Impatient::new(reader, limit, guard.flag()));
        let work = tokio::task::spawn_blocking(move || {
            convert::tar_to_vhd_with(&target, reader, &options)
        });
        work.await.unwrap_or_else(|error| Err(stopped(error)))
    }

    /// Makes an empty ext4 disk in a VHDX, as [`create_ext4_vhdx`](crate::create_ext4_vhdx) does, in a
    /// thread of its own; the VM is not needed for it and not asked.
    ///
    /// # Errors
    /// As there.
    #[doc(alias = "CreateExt4Vhdx")]
    pub async fn create_ext4_vhdx(
        &self,
        dest_file: impl AsRef<Path>,
        size_gb: u32,
        cache_file: Option<&Path>,
    ) -> Result<()> {
        let dest_file = dest_file.as_ref().to_owned();
        let cache_file = cache_file.map(Path::to_owned);
        let work = tokio::task::spawn_blocking(move || {
            convert::create_ext4_vhdx(&dest_file, size_gb, cache_file.as_deref())
        });
        work.await.unwrap_or_else(|error| Err(stopped(error)))
    }

    /// Reads a disk file as a tar stream.
    ///
    /// A sandbox that is attached to this VM is read by the guest: `exportSandbox -path` on
    /// `uvm_mount_path`, or where it is mounted when that is `None`. Everything else is read natively,
    /// as by [`vhd_to_tar`](crate::vhd_to_tar). A failure is an error of the read, and never a clean
    /// end; a stream that gives nothing for longer than the VM's timeout fails.
    ///
    /// # Errors
    /// The disk is not there; it is attached so that it can be written, and no sandbox; it is not
    /// mounted; or the guest has no `exportSandbox`.
    #[doc(alias = "VhdToTar")]
    pub async fn vhd_to_tar(
        &self,
        vhd_file: impl AsRef<Path>,
        uvm_mount_path: Option<&str>,
        is_sandbox: bool,
        vhd_size: Option<u64>,
    ) -> Result<TarStream> {
        let vhd_file = vhd_file.as_ref();
        match self.attachment_of(vhd_file) {
            Some(attachment) if is_sandbox => {
                let mounted = match (uvm_mount_path, &attachment.place) {
                    (Some(path), _) => path,
                    (None, GuestPlace::Mounted(path)) => path,
                    (None, GuestPlace::Device(_)) => {
                        return Err(Error::invalid(format!(
                            "the sandbox {} is attached to the VM and not mounted",
                            vhd_file.display()
                        ))
                        .hint("say where in the VM it is mounted, or remove it from the VM"));
                    }
                };
                self.export_live(mounted).await
            }
            Some(attachment) if !attachment.read_only => Err(Error::new(
                ErrorKind::Locked,
                format!(
                    "the disk {} is attached to the VM, which may be writing to it",
                    vhd_file.display()
                ),
            )
            .hint("remove it from the VM first, or export it as a sandbox")),
            _ => {
                convert::check_source(vhd_file, vhd_size)?;
                Ok(self.export_natively(vhd_file, is_sandbox))
            }
        }
    }

    fn export_natively(&self, vhd_file: &Path, is_sandbox: bool) -> TarStream {
        let (sender, chunks) = mpsc::channel(DEPTH);
        let cancel = CancelOnDrop::default();
        let flag = cancel.flag();
        let vhd_file = vhd_file.to_owned();
        tokio::task::spawn_blocking(move || {
            let pipe = move |chunk| sender.blocking_send(chunk).is_ok();
            convert::export_into(&vhd_file, is_sandbox, flag, pipe);
        });
        TarStream::new(chunks, Some(cancel))
    }

    async fn export_live(&self, mounted: &str) -> Result<TarStream> {
        check_guest_path(mounted)?;
        let spec = ProcessSpec::new(["exportSandbox", "-path", mounted])
            .stdin(false)
            .kill_on_drop(true);
        let process = self.run_process(spec).await?;
        let log = DataLog::new(
            format!("tar of {mounted} in the VM"),
            &self.inner.config.environment,
        );
        let (sender, chunks) = mpsc::channel(DEPTH);
        let limit = self.inner.timeout();
        let mounted = mounted.to_owned();
        let task = tokio::spawn(async move {
            let relayed = tokio::select! {
                outcome = relay(process, &sender, log, limit) => outcome,
                // Nobody reads any more: dropping the process kills it.
                () = sender.closed() => return,
            };
            let last = relayed.map(|()| Vec::new()).map_err(|error| {
                io::Error::from(
                    Error::new(
                        error.kind(),
                        format!("cannot export the sandbox at {mounted} in the VM"),
                    )
                    .caused_by(error),
                )
            });
            let _ = sender.send(last).await;
        });
        self.inner.keep(task.abort_handle());
        Ok(TarStream::new(chunks, None))
    }
}

/// Sends on what the tool writes. That it wrote to its end is known only from its exit code.
async fn relay(
    mut process: Process,
    sender: &mpsc::Sender<Chunk>,
    mut log: DataLog,
    limit: Duration,
) -> Result<()> {
    let messages = process.stderr.take();
    let messages = tokio::spawn(async move {
        match messages {
            Some(stream) => read_bounded(stream, MESSAGES).await,
            None => Vec::new(),
        }
    });
    let silent = |_| {
        Error::new(
            ErrorKind::Timeout,
            format!("nothing came from the VM for {} s", limit.as_secs()),
        )
    };
    let mut broken = None;
    if let Some(mut output) = process.stdout.take() {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = tokio::time::timeout(limit, output.read_buf(&mut chunk));
            match read.await.map_err(silent)? {
                Ok(0) => break,
                Ok(_) => {
                    log.see(&chunk);
                    if sender.send(Ok(chunk)).await.is_err() {
                        return Err(Error::new(ErrorKind::Cancelled, "the reader has gone"));
                    }
                }
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
    }
    let status = tokio::time::timeout(limit, process.wait())
        .await
        .map_err(silent)??;
    if status.success() {
        return match broken {
            None => Ok(()),
            Some(error) => {
                Err(Error::new(ErrorKind::Io, "the tar from the VM was cut").caused_by(error))
            }
        };
    }
    let messages = tokio::time::timeout(limit, messages).await;
    let messages = messages.ok().and_then(Result::ok).unwrap_or_default();
    let said = String::from_utf8_lossy(&messages);
    let said = said
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing");
    Err(Error::new(
        ErrorKind::GuestRefused,
        format!(
            "exportSandbox failed with {status}: {}",
            said.trim().replace(char::is_control, " ")
        ),
    ))
}

/// A tar stream that is made while it is read. Dropping it stops what makes it.
#[derive(Debug)]
pub struct TarStream {
    chunks: Option<mpsc::Receiver<Chunk>>,
    current: io::Cursor<Vec<u8>>,
    _cancel: Option<CancelOnDrop>,
}

impl TarStream {
    fn new(chunks: mpsc::Receiver<Chunk>, cancel: Option<CancelOnDrop>) -> Self {
        Self {
            chunks: Some(chunks),
            current: io::Cursor::new(Vec::new()),
            _cancel: cancel,
        }
    }
}

impl AsyncRead for TarStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.current).poll_read(context, buffer))?;
            if buffer.filled().len() > before || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let Some(chunks) = self.chunks.as_mut() else {
                return Poll::Ready(Ok(()));
            };
            match ready!(chunks.poll_recv(context)) {
                Some(Ok(chunk)) if chunk.is_empty() => self.chunks = None,
                Some(Ok(chunk)) => self.current = io::Cursor::new(chunk),
                Some(Err(error)) => {
                    self.chunks = None;
                    return Poll::Ready(Err(error));
                }
                None => {
                    self.chunks = None;
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the conversion ended in the middle of the tar",
                    )));
                }
            }
        }
    }
}

/// A conversion whose thread ended without an answer.
fn stopped(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Cancelled, "the conversion stopped").caused_by(error)
}

/// Sets a conversion's flag when its owner goes.
#[derive(Debug, Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl CancelOnDrop {
    fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A reader that fails when nothing comes for too long, or when nobody wants it any more.
struct Impatient<R> {
    reader: R,
    limit: Duration,
    cancelled: Arc<AtomicBool>,
    /// The next look at the flag, and how many are left before the silence is too long.
    look: Pin<Box<tokio::time::Sleep>>,
    waited: Duration,
}

/// How often a silent reader's flag is looked at.
const LOOK: Duration = Duration::from_millis(200);

impl<R> Impatient<R> {
    fn new(reader: R, limit: Duration, cancelled: Arc<AtomicBool>) -> Self {
        Self {
            reader,
            limit,
            cancelled,
            look: Box::pin(tokio::time::sleep(LOOK)),
            waited: Duration::ZERO,
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Impatient<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(outcome) = Pin::new(&mut self.reader).poll_read(context, buffer) {
            self.waited = Duration::ZERO;
            return Poll::Ready(outcome);
        }
        while self.look.as_mut().poll(context).is_ready() {
            if self.cancelled.load(Ordering::Relaxed) {
                return Poll::Ready(Err(io::Error::other("cancelled")));
            }
            self.waited += LOOK;
            if self.waited >= self.limit {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("nothing came for {} s", self.limit.as_secs()),
                )));
            }
            let next = tokio::time::Instant::now() + LOOK;
            self.look.as_mut().reset(next);
        }
        Poll::Pending
    }
}
