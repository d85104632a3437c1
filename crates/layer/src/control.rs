//! How a caller watches a conversion, and stops it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, ErrorKind, Result};

/// How far a conversion is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries done.
    pub entries: u64,
    /// Bytes of the (uncompressed) tar read or written.
    pub bytes: u64,
}

type Callback = Arc<dyn Fn(Progress) + Send + Sync>;
type Expectation = Arc<dyn Fn(u64) + Send + Sync>;

/// A caller's hold on a running conversion: a callback for progress and a flag to cancel.
#[derive(Clone, Default)]
pub struct Control {
    callback: Option<Callback>,
    expectation: Option<Expectation>,
    cancelled: Arc<AtomicBool>,
}

impl Control {
    /// A control that tells nobody and has a flag of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `callback` about once a megabyte, from the thread that does the work.
    #[must_use]
    pub fn on_progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.callback = Some(Arc::new(callback));
        self
    }

    /// Calls `callback` at most once, before the work begins, with about how many
    /// [bytes](Progress::bytes) there will be, where that can be told: what a file system has in
    /// use says it of the tar that it becomes. It may be less or more.
    #[must_use]
    pub fn on_expected(mut self, callback: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.expectation = Some(Arc::new(callback));
        self
    }

    /// Stops the conversion at `flag`; it then fails with [`ErrorKind::Cancelled`].
    #[must_use]
    pub fn cancel_with(mut self, flag: Arc<AtomicBool>) -> Self {
        self.cancelled = flag;
        self
    }

    /// One that is cancelled with this one, and tells nobody.
    pub(crate) fn silent(&self) -> Self {
        Self {
            callback: None,
            expectation: None,
            cancelled: Arc::clone(&self.cancelled),
        }
    }

    /// Asks the conversion to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn expect(&self, bytes: u64) {
        if let Some(callback) = &self.expectation {
            callback(bytes);
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            Err(Error::new(ErrorKind::Cancelled, "cancelled"))
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("callback", &self.callback.is_some())
            .field("expectation", &self.expectation.is_some())
            .field("cancelled", &self.cancelled)
            .finish()
    }
}

/// Tells the control now and then, and asks it whether to go on.
pub(crate) struct Meter<'a> {
    control: &'a Control,
    told: Progress,
}

const EVERY_BYTES: u64 = 1 << 20;
const EVERY_ENTRIES: u64 = 1000;

impl<'a> Meter<'a> {
    pub(crate) fn new(control: &'a Control) -> Self {
        Self {
            control,
            told: Progress::default(),
        }
    }

    pub(crate) fn step(&mut self, now: Progress) -> Result<()> {
        if now.bytes - self.told.bytes >= EVERY_BYTES
            || now.entries - self.told.entries >= EVERY_ENTRIES
        {
            self.tell(now)?;
        }
        Ok(())
    }

    pub(crate) fn tell(&mut self, now: Progress) -> Result<()> {
        self.told = now;
        self.control.check()?;
        if let Some(callback) = &self.control.callback {
            callback(now);
        }
        Ok(())
    }
}
