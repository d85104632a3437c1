//! The processes that the host has started: who waits for them, and when they are forgotten.
//!
//! A process that has ended stays a zombie, so that its number is not given away, until its exit
//! code has been *collected*: an answer with it has been written whole to a bridge connection.
//! Only then is it reaped and forgotten. A host that never asks leaves zombies behind; of those
//! the oldest are forgotten when there are more than [`MOST_EXITED`].

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use opengcs_bridge::{
    Failure, HResult, WAIT_FOREVER,
    guest::Ticket,
    message::{Response, WaitResponse},
};
use rustix::{
    event::{EventfdFlags, epoll, eventfd},
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open,
        pidfd_send_signal, waitid,
    },
    termios::{Winsize, tcsetwinsize},
    time::Timespec,
};

use super::{Outcome, connection::Answers, failed, invalid};
use crate::{log, sys};

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
    waiters: usize,
    started: u64,
}

/// One process among all that ever had its number.
#[derive(Clone, Copy, PartialEq)]
struct Identity {
    pid: u32,
    serial: u64,
}

struct Record {
    serial: u64,
    handle: OwnedFd,
    exit_code: Option<u32>,
    /// Whether its exit code is being sent: whether it is collected is known when that is done.
    answering: bool,
    waiters: Vec<Waiter>,
    terminal: Option<Weak<OwnedFd>>,
}

struct Waiter {
    answers: Arc<Answers>,
    ticket: Ticket,
    deadline: Option<Instant>,
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

    /// Takes in a child that nobody has reaped.
    pub(super) fn insert(&self, pid: u32, terminal: Option<Weak<OwnedFd>>) -> Outcome<()> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let handle = number
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(|error| failed(format!("watch process {pid}: {error}")))?;
        let mut table = self.table();
        epoll::add(
            &self.epoll,
            &handle,
            epoll::EventData::new_u64(u64::from(pid)),
            epoll::EventFlags::IN,
        )
        .map_err(|error| failed(format!("watch process {pid}: {error}")))?;
        table.started += 1;
        let serial = table.started;
        table.records.insert(
            pid,
            Record {
                serial,
                handle,
                exit_code: None,
                answering: false,
                waiters: Vec::new(),
                terminal,
            },
        );
        Ok(())
    }

    /// Answers when the process has ended, or `timeout_in_ms` has passed.
    pub(super) fn wait(
        &self,
        pid: u32,
        timeout_in_ms: u32,
        answers: &Arc<Answers>,
        ticket: Ticket,
    ) {
        let failure = {
            let being_answered = |table: &mut Table| {
                table
                    .records
                    .get(&pid)
                    .is_some_and(|record| record.answering)
            };
            let mut table = self
                .answered
                .wait_while(self.table(), being_answered)
                .unwrap_or_else(PoisonError::into_inner);
            let crowded = table.waiters >= MOST_WAITERS;
            match table.records.get_mut(&pid) {
                None => unknown(pid),
                Some(record) => {
                    if let Some(exit_code) = record.exit_code {
                        record.answering = true;
                        let serial = record.serial;
                        drop(table);
                        let identity = Identity { pid, serial };
                        self.answer_exit(identity, exit_code, [(Arc::clone(answers), ticket)]);
                        return;
                    }
                    if timeout_in_ms == 0 {
                        timed_out(pid)
                    } else if crowded {
                        failed(format!("{MOST_WAITERS} requests wait already"))
                    } else {
                        let deadline = (timeout_in_ms != WAIT_FOREVER).then(|| {
                            Instant::now() + Duration::from_millis(u64::from(timeout_in_ms))
                        });
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
                    }
                }
            }
        };
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

    /// Sends a signal; 0 stands for `SIGKILL`.
    pub(super) fn signal(&self, pid: u32, number: i32) -> Outcome<()> {
        let number = if number == 0 {
            Signal::KILL.as_raw()
        } else {
            number
        };
        let signal = sys::signal(number)
            .ok_or_else(|| invalid(format!("{number} is not the number of a signal")))?;
        let table = self.table();
        let record = table.records.get(&pid).ok_or_else(|| unknown(pid))?;
        if record.exit_code.is_some() {
            return Err(ended(pid));
        }
        pidfd_send_signal(&record.handle, signal)
            .map_err(|error| failed(format!("signal {number} to process {pid}: {error}")))
    }

    /// Changes the size of a process's terminal.
    pub(super) fn resize(&self, pid: u32, rows: u16, columns: u16) -> Outcome<()> {
        let table = self.table();
        let record = table.records.get(&pid).ok_or_else(|| unknown(pid))?;
        if record.exit_code.is_some() {
            return Err(ended(pid));
        }
        let terminal = record
            .terminal
            .as_ref()
            .ok_or_else(|| failed(format!("process {pid} has no terminal to resize")))?
            .upgrade()
            .ok_or_else(|| failed(format!("the terminal of process {pid} is closed")))?;
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&*terminal, size)
            .map_err(|error| failed(format!("resize the terminal of process {pid}: {error}")))
    }

    /// The processes that run.
    pub(super) fn running(&self) -> Vec<u32> {
        let table = self.table();
        let mut pids: Vec<u32> = table
            .records
            .iter()
            .filter(|(_, record)| record.exit_code.is_none())
            .map(|(pid, _)| *pid)
            .collect();
        pids.sort_unstable();
        pids
    }

    fn watch(&self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        loop {
            let timeout = self.time_out();
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    log::error(format_args!("wait for processes: {error}"));
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            for event in &events {
                match u32::try_from(event.data.u64()) {
                    Ok(pid) if u64::from(pid) != WAKE => self.exited(pid),
                    _ => {
                        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
                    }
                }
            }
        }
    }

    /// Answers those whose time has passed, and tells how long it is to the next.
    fn time_out(&self) -> Option<Timespec> {
        let now = Instant::now();
        let mut late = Vec::new();
        let mut next: Option<Instant> = None;
        let mut table = self.table();
        for (pid, record) in &mut table.records {
            record.waiters.retain_mut(|waiter| match waiter.deadline {
                Some(deadline) if deadline <= now => {
                    late.push((*pid, Arc::clone(&waiter.answers), waiter.ticket.clone()));
                    false
                }
                Some(deadline) => {
                    next = Some(next.map_or(deadline, |next| next.min(deadline)));
                    true
                }
                None => true,
            });
        }
        table.waiters -= late.len();
        drop(table);
        for (pid, answers, ticket) in late {
            answers.send(&ticket.answer(Err(timed_out(pid))));
        }
        // A moment more, so that the deadline has passed when the wait is over.
        let rest = next?.saturating_duration_since(Instant::now()) + Duration::from_micros(100);
        Timespec::try_from(rest).ok()
    }

    fn exited(&self, pid: u32) {
        let mut table = self.table();
        let Some(record) = table.records.get_mut(&pid) else {
            return;
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let exit_code = match waitid(WaitId::PidFd(record.handle.as_fd()), options) {
            Ok(Some(status)) => exit_code(&status),
            Ok(None) => return,
            Err(error) => {
                log::error(format_args!("exit code of process {pid}: {error}"));
                u32::MAX
            }
        };
        let _ = epoll::delete(&self.epoll, &record.handle);
        record.exit_code = Some(exit_code);
        let serial = record.serial;
        let waiters = std::mem::take(&mut record.waiters);
        record.answering = !waiters.is_empty();
        table.waiters -= waiters.len();
        let identity = Identity { pid, serial };
        table.exited.push_back(identity);
        let surplus = table.exited.len().saturating_sub(MOST_EXITED);
        let oldest: Vec<Identity> = table.exited.iter().take(surplus).copied().collect();
        drop(table);
        for oldest in oldest {
            log::info(format_args!(
                "process {} was never waited for and is forgotten",
                oldest.pid
            ));
            self.collect(oldest);
        }
        self.answer_exit(
            identity,
            exit_code,
            waiters
                .into_iter()
                .map(|waiter| (waiter.answers, waiter.ticket)),
        );
    }

    fn answer_exit(
        &self,
        identity: Identity,
        exit_code: u32,
        waiters: impl IntoIterator<Item = (Arc<Answers>, Ticket)>,
    ) {
        let mut collected = false;
        for (answers, ticket) in waiters {
            let response = Response::Exited(WaitResponse {
                exit_code,
                ..WaitResponse::default()
            });
            collected |= answers.send(&ticket.answer(Ok(response)));
        }
        if collected {
            self.collect(identity);
        } else if let Some(record) = self.table().records.get_mut(&identity.pid)
            && record.serial == identity.serial
        {
            record.answering = false;
        }
        self.answered.notify_all();
    }

    /// Reaps a process that has ended, and forgets it, unless somebody else already has.
    fn collect(&self, identity: Identity) {
        let Identity { pid, serial } = identity;
        let mut table = self.table();
        table.exited.retain(|exited| *exited != identity);
        let same = |record: &Record| record.serial == serial;
        if !table.records.get(&pid).is_some_and(same) {
            return;
        }
        let Some(record) = table.records.remove(&pid) else {
            return;
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if let Err(error) = waitid(WaitId::PidFd(record.handle.as_fd()), options) {
            log::debug(format_args!("reap process {pid}: {error}"));
        }
    }
}

fn exit_code(status: &WaitIdStatus) -> u32 {
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    signal
        .or(status.exit_status())
        .and_then(|code| u32::try_from(code).ok())
        .unwrap_or(u32::MAX)
}

fn unknown(pid: u32) -> Failure {
    Failure::new(
        HResult::NOT_FOUND,
        format!("no process {pid}, or its exit code has been collected"),
    )
}

fn ended(pid: u32) -> Failure {
    Failure::new(HResult::NOT_FOUND, format!("process {pid} has ended"))
}

fn timed_out(pid: u32) -> Failure {
    Failure::new(
        HResult::TIMEOUT,
        format!("process {pid} has not ended within the time limit"),
    )
}
