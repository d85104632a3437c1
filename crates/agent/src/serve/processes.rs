//! The processes that the host has started: who waits for them, and when they are forgotten.
//!
//! ```text
//!   insert ──► running ──► exited ──► collected ──► forgotten
//!                 │          │ (zombie)   │ (reaped; the code is kept for a later connection)
//!                 └── wait ──┴── answer ──┘
//! ```
//!
//! A process that has ended stays a zombie, so that its number is not given away, until its exit
//! code has been *collected*: an answer with it has been written whole to a bridge connection.
//! Only then is it reaped. That connection may still break before the host has read the answer, so
//! the code is kept, and a later connection may collect it once more. A host that never asks leaves
//! zombies behind; of those the oldest are forgotten when there are more than [`MOST_EXITED`].

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use opengcs_bridge::{
    Failure, HResult, WAIT_FOREVER,
    guest::Ticket,
    message::{Response, WaitResponse},
};
use rustix::{
    event::{EventfdFlags, epoll, eventfd},
    process::{Pid, Signal, kill_process_group, pidfd_send_signal},
    termios::Winsize,
};

use self::collected::Collected;
use super::{Outcome, connection::Answers, failed, invalid};
use crate::sys;

mod collected;
mod watch;

/// How many processes that have ended may wait to be collected.
const MOST_EXITED: usize = 1024;

/// How many requests may wait for processes.
const MOST_WAITERS: usize = 16_384;

/// The `epoll` tag of the wake-up; no process has it.
const WAKE: u64 = 0;

pub(super) struct Processes {
    table: Mutex<Table>,
    /// Told when the sending of an exit code has come to its end.
    answered: Condvar,
    epoll: OwnedFd,
    wake: OwnedFd,
}

#[derive(Default)]
struct Table {
    records: HashMap<u32, Record>,
    /// Those that have ended, oldest first.
    exited: VecDeque<Identity>,
    collected: Collected,
    waiters: usize,
    started: u64,
}

/// One process among all that ever had its number.
#[derive(Clone, Copy, PartialEq)]
struct Identity {
    pid: u32,
    serial: u64,
}

/// A process that has just been started.
pub(super) struct Started {
    /// Its number, as the host knows it.
    pub(super) pid: u32,
    /// Our own child, whose exit code is the process's: the process, or who looks after it.
    pub(super) child: OwnedFd,
    /// The process, when it is not the child: whom signals go to.
    pub(super) target: Option<OwnedFd>,
    /// The container that it runs in.
    pub(super) container: Option<Arc<str>>,
    /// How its terminal is resized.
    pub(super) resize: Option<Resize>,
    /// Called with its exit code when those who waited have been answered.
    pub(super) ended: Option<Ended>,
}

pub(super) type Resize = Box<dyn Fn(Winsize) -> io::Result<()> + Send>;
pub(super) type Ended = Box<dyn FnOnce(u32) + Send>;

struct Record {
    serial: u64,
    started: Started,
    exit_code: Option<u32>,
    /// Whether its exit code is being sent: whether it is collected is known when that is done.
    answering: bool,
    waiters: Vec<Waiter>,
}

struct Waiter {
    answers: Arc<Answers>,
    ticket: Ticket,
    deadline: Option<Instant>,
}

impl Started {
    /// Whether a request to `container` (`None`: the VM itself) may speak of it. What runs outside
    /// any container may have been started by way of one.
    fn belongs_to(&self, container: Option<&str>) -> bool {
        self.container.is_none() || self.container.as_deref() == container
    }
}

impl Processes {
    /// An empty table, and the thread that looks after it.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let processes = Arc::new(Self {
            table: Mutex::default(),
            answered: Condvar::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        epoll::add(
            &processes.epoll,
            &processes.wake,
            epoll::EventData::new_u64(WAKE),
            epoll::EventFlags::IN,
        )?;
        let watched = Arc::clone(&processes);
        super::spawn("processes", move || watched.watch())?;
        Ok(processes)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It fails only when the counter is full, and then the thread is being woken anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes in a process whose child nobody has reaped.
    pub(super) fn insert(&self, started: Started) -> Outcome<()> {
        let pid = started.pid;
        let mut table = self.table();
        epoll::add(
            &self.epoll,
            &started.child,
            epoll::EventData::new_u64(u64::from(pid)),
            epoll::EventFlags::IN,
        )
        .map_err(|error| failed(format!("watch process {pid}: {error}")))?;
        table.started += 1;
        let serial = table.started;
        table.collected.forget(pid);
        let record = Record {
            serial,
            started,
            exit_code: None,
            answering: false,
            waiters: Vec::new(),
        };
        // A container's process is reaped by who looks after it, so that its number may come back
        // before its exit code has been collected. The newcomer has it then.
        if let Some(old) = table.records.insert(pid, record) {
            table.waiters -= old.waiters.len();
            table.exited.retain(|exited| exited.serial != old.serial);
        }
        Ok(())
    }

    /// Answers when the process has ended, or `timeout_in_ms` has passed.
    pub(super) fn wait(
        &self,
        container: Option<&str>,
        pid: u32,
        timeout_in_ms: u32,
        answers: &Arc<Answers>,
        ticket: Ticket,
    ) {
        let being_answered = |table: &mut Table| {
            let record = table.records.get(&pid);
            record.is_some_and(|record| record.answering)
        };
        let mut table = self
            .answered
            .wait_while(self.table(), being_answered)
            .unwrap_or_else(PoisonError::into_inner);
        let crowded = table.waiters >= MOST_WAITERS;
        let record = table.records.get_mut(&pid);
        let Some(record) = record.filter(|record| record.started.belongs_to(container)) else {
            let again = table.collected.again(pid, container, answers.number());
            drop(table);
            let outcome = again.map(exited).ok_or_else(|| unknown(pid));
            answers.send(&ticket.answer(outcome));
            return;
        };
        if let Some(exit_code) = record.exit_code {
            record.answering = true;
            let serial = record.serial;
            drop(table);
            let identity = Identity { pid, serial };
            self.answer_exit(identity, exit_code, [(Arc::clone(answers), ticket)]);
            return;
        }
        let failure = if timeout_in_ms == 0 {
            timed_out(pid)
        } else if crowded {
            failed(format!("{MOST_WAITERS} requests wait already"))
        } else {
            let limit = Duration::from_millis(u64::from(timeout_in_ms));
            let deadline = (timeout_in_ms != WAIT_FOREVER).then(|| Instant::now() + limit);
            record.waiters.push(Waiter {
                answers: Arc::clone(answers),
                ticket,
                deadline,
            });
            table.waiters += 1;
            drop(table);
            if deadline.is_some() {
                self.wake();
            }
            return;
        };
        drop(table);
        answers.send(&ticket.answer(Err(failure)));
    }

    /// A connection is gone: nobody waits on it any more.
    pub(super) fn forget_waiters(&self, answers: &Arc<Answers>) {
        let mut table = self.table();
        let mut forgotten = 0;
        for record in table.records.values_mut() {
            let before = record.waiters.len();
            record
                .waiters
                .retain(|waiter| !Arc::ptr_eq(&waiter.answers, answers));
            forgotten += before - record.waiters.len();
        }
        table.waiters -= forgotten;
    }

    /// Sends a signal; 0 stands for `SIGKILL`. Gives the signal's number.
    pub(super) fn signal(&self, container: Option<&str>, pid: u32, number: i32) -> Outcome<i32> {
        let number = if number == 0 {
            Signal::KILL.as_raw()
        } else {
            number
        };
        let signal = sys::signal(number)
            .ok_or_else(|| invalid(format!("{number} is not the number of a signal")))?;
        let table = self.table();
        let started = running(&table, container, pid)?;
        let target = started.target.as_ref().unwrap_or(&started.child);
        pidfd_send_signal(target, signal)
            .map_err(|error| failed(format!("signal {number} to process {pid}: {error}")))?;
        if number == Signal::KILL.as_raw() && started.target.is_none() {
            // It leads its own group, and its number is not given away while it is in the table.
            // What it has started would otherwise live on, with its streams.
            if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, signal);
            }
        }
        Ok(number)
    }

    /// Changes the size of a process's terminal.
    pub(super) fn resize(
        &self,
        container: Option<&str>,
        pid: u32,
        rows: u16,
        columns: u16,
    ) -> Outcome<()> {
        let table = self.table();
        let resize = running(&table, container, pid)?
            .resize
            .as_ref()
            .ok_or_else(|| failed(format!("process {pid} has no terminal to resize")))?;
        resize(winsize(rows, columns))
            .map_err(|error| failed(format!("resize the terminal of process {pid}: {error}")))
    }

    /// The processes outside of containers that run.
    pub(super) fn running(&self) -> Vec<u32> {
        let table = self.table();
        let mut pids: Vec<u32> = table
            .records
            .iter()
            .filter(|(_, record)| record.exit_code.is_none() && record.started.container.is_none())
            .map(|(pid, _)| *pid)
            .collect();
        pids.sort_unstable();
        pids
    }
}

/// A terminal's size in characters.
pub(crate) fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn running<'a>(table: &'a Table, container: Option<&str>, pid: u32) -> Outcome<&'a Started> {
    let record = table.records.get(&pid);
    let record = record
        .filter(|record| record.started.belongs_to(container))
        .ok_or_else(|| unknown(pid))?;
    if record.exit_code.is_some() {
        return Err(Failure::new(
            HResult::NOT_FOUND,
            format!("process {pid} has ended"),
        ));
    }
    Ok(&record.started)
}

fn exited(exit_code: u32) -> Response {
    Response::Exited(WaitResponse {
        exit_code,
        ..WaitResponse::default()
    })
}

fn unknown(pid: u32) -> Failure {
    Failure::new(
        HResult::NOT_FOUND,
        format!("no process {pid}, or its exit code has been collected"),
    )
}

fn timed_out(pid: u32) -> Failure {
    Failure::new(
        HResult::TIMEOUT,
        format!("process {pid} has not ended within the time limit"),
    )
}
