//! The thread that sees processes end and time limits pass, and what it answers.

use std::{
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use opengcs_bridge::guest::Ticket;
use rustix::{
    event::epoll,
    process::{WaitId, WaitIdOptions, WaitIdStatus, waitid},
    time::Timespec,
};

use super::{Identity, MOST_EXITED, Processes, Record, WAKE, exited, timed_out};
use crate::{log, serve::connection::Answers};

impl Processes {
    pub(super) fn watch(&self) {
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
                    Ok(pid) if u64::from(pid) != WAKE => self.see_exit(pid),
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

    fn see_exit(&self, pid: u32) {
        let mut table = self.table();
        let Some(record) = table.records.get_mut(&pid) else {
            return;
        };
        let child = &record.started.child;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let exit_code = match waitid(WaitId::PidFd(child.as_fd()), options) {
            Ok(Some(status)) => exit_code(&status),
            Ok(None) => return,
            Err(error) => {
                log::error(format_args!("exit code of process {pid}: {error}"));
                u32::MAX
            }
        };
        let _ = epoll::delete(&self.epoll, child);
        record.exit_code = Some(exit_code);
        let ended = record.started.ended.take();
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
            self.forget(oldest, None);
        }
        self.answer_exit(
            identity,
            exit_code,
            waiters
                .into_iter()
                .map(|waiter| (waiter.answers, waiter.ticket)),
        );
        if let Some(ended) = ended {
            ended(exit_code);
        }
    }

    pub(super) fn answer_exit(
        &self,
        identity: Identity,
        exit_code: u32,
        waiters: impl IntoIterator<Item = (Arc<Answers>, Ticket)>,
    ) {
        let mut collected = None;
        for (answers, ticket) in waiters {
            if answers.send(&ticket.answer(Ok(exited(exit_code)))) {
                collected = collected.max(Some(answers.number()));
            }
        }
        if let Some(connection) = collected {
            self.forget(identity, Some((exit_code, connection)));
        } else if let Some(record) = self.table().records.get_mut(&identity.pid)
            && record.serial == identity.serial
        {
            record.answering = false;
        }
        self.answered.notify_all();
    }

    /// Reaps a process that has ended, and takes it out of the table, unless somebody else has.
    /// Its code is kept when a connection has had it.
    fn forget(&self, identity: Identity, had: Option<(u32, u64)>) {
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
        if let Err(error) = waitid(WaitId::PidFd(record.started.child.as_fd()), options) {
            log::debug(format_args!("reap process {pid}: {error}"));
        }
        if let Some((exit_code, connection)) = had {
            let container = record.started.container;
            table.collected.keep(pid, exit_code, container, connection);
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
