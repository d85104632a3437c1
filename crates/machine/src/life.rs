//! Decides how a machine's state and its end are kept and told: the same for every hypervisor.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::config::{Boot, MachineConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::{Exit, ExitReason};
use crate::state::{Event, State};

/// Where one machine is in its life, and how it ended.
#[derive(Debug)]
pub(crate) struct Life {
    name: String,
    state: Mutex<State>,
    exit: watch::Sender<Option<Exit>>,
}

impl Life {
    /// That of a machine of this name, which does not run yet.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: Mutex::new(State::Created),
            exit: watch::Sender::new(None),
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> State {
        *self.locked()
    }

    /// Moves on if the event fits; gives the state it left.
    pub(crate) fn advance(&self, event: Event) -> std::result::Result<State, State> {
        let mut state = self.locked();
        let before = *state;
        match before.after(event) {
            Some(after) => {
                *state = after;
                Ok(before)
            }
            None => Err(before),
        }
    }

    /// The start has been asked for.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`]: a machine is started once.
    pub(crate) fn power_on(&self) -> Result<()> {
        let moved = self.advance(Event::PowerOn).map(drop);
        moved.map_err(|state| {
            Error::new(
                ErrorKind::WrongState,
                format!("machine {} cannot be started: it is {state}", self.name),
            )
        })
    }

    /// `running`, which is what there is while the machine runs.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] before it runs, [`ErrorKind::GuestDied`] afterwards.
    pub(crate) fn while_running<T>(&self, running: Option<T>) -> Result<T> {
        match (running, self.state()) {
            (Some(running), State::Running | State::Stopping) if !self.has_ended() => Ok(running),
            (_, state @ (State::Created | State::Starting)) => Err(Error::new(
                ErrorKind::WrongState,
                format!("machine {} is not running yet: it is {state}", self.name),
            )),
            _ => Err(self.died()),
        }
    }

    /// The error of an operation that the machine's end came before.
    pub(crate) fn died(&self) -> Error {
        let how = self
            .exit
            .borrow()
            .as_ref()
            .map_or_else(|| "it is gone".to_owned(), Exit::to_string);
        Error::new(
            ErrorKind::GuestDied,
            format!("machine {} has ended: {how}", self.name),
        )
    }

    /// Whether its end has been reported.
    pub(crate) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Reports the end, which happens once: whoever hears of it finds the state that goes with it. Tells
    /// whether it is news.
    pub(crate) fn end(&self, exit: Exit, event: Event) -> bool {
        self.exit.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                let _ = self.advance(event);
                *slot = Some(exit);
            }
            first
        })
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let found = exit.wait_for(Option::is_some).await;
        let found = found.ok().and_then(|exit| exit.clone());
        found.unwrap_or_else(|| Exit::new(ExitReason::Terminated, ""))
    }
}

/// Runs its action when dropped, unless disarmed: what undoes a start that its caller gives up.
pub(crate) struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    pub(crate) fn new(action: F) -> Self {
        Self(Some(action))
    }

    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(action) = self.0.take() {
            action();
        }
    }
}

/// Finds out before the hypervisor does, and says more clearly, that a kernel or an initrd cannot be used.
pub(crate) fn check_boot_files(config: &MachineConfig) -> Result<()> {
    match &config.boot {
        Boot::LinuxKernel { kernel, initrd, .. } => {
            readable("kernel", kernel)?;
            initrd
                .as_ref()
                .map_or(Ok(()), |initrd| readable("initrd", initrd))
        }
        Boot::Disk { .. } => Ok(()),
    }
}

/// Fails unless `path` is a file that can be read and has something in it.
pub(crate) fn readable(what: &str, path: &Path) -> Result<()> {
    std::fs::File::open(path)
        .and_then(|file| file.metadata())
        .and_then(|metadata| match metadata.is_file() {
            true if metadata.len() == 0 => Err(std::io::Error::other("it is empty")),
            true => Ok(()),
            false => Err(std::io::Error::other("it is not a file")),
        })
        .map_err(|error| Error::path(&format!("open {what}"), path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_reported_once_with_its_state() {
        let life = Life::new("uvm");
        assert_eq!(
            life.while_running(Some(())).unwrap_err().kind(),
            ErrorKind::WrongState
        );
        life.power_on().unwrap();
        assert_eq!(life.power_on().unwrap_err().kind(), ErrorKind::WrongState);
        life.advance(Event::Up).unwrap();
        life.while_running(Some(())).unwrap();
        let off = Exit::new(ExitReason::PoweredOff, "");
        assert!(life.end(off, Event::ProcessEnded));
        let late = Exit::new(ExitReason::Terminated, "");
        assert!(!life.end(late, Event::ProcessEnded));
        assert_eq!(life.state(), State::Stopped);
        let error = life.while_running(Some(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::GuestDied);
        assert!(error.to_string().contains("powered off"), "{error}");
    }

    #[test]
    fn files_that_cannot_boot_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, whole) = (folder.path().join("empty"), folder.path().join("whole"));
        std::fs::write(&empty, "").unwrap();
        std::fs::write(&whole, "x").unwrap();
        let check = |kernel: &Path, initrd: Option<&Path>| {
            let boot = Boot::LinuxKernel {
                kernel: kernel.to_owned(),
                initrd: initrd.map(Path::to_owned),
                command_line: String::new(),
            };
            check_boot_files(&MachineConfig::new("uvm", folder.path(), boot))
        };
        check(&whole, None).unwrap();
        check(&whole, Some(&whole)).unwrap();
        let error = check(&folder.path().join("none"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        for bad in [empty.as_path(), folder.path()] {
            let error = check(&whole, Some(bad)).unwrap_err();
            assert!(error.to_string().contains("initrd"), "{error}");
        }
    }
}
