//! Decides when the guest is told that packets of its have been taken: in bulk, and after a moment at most.
//!
//! Linux does nothing with that news but free the packets, and pays an interrupt and two switches of tasks
//! for it. So it is told when a good part of its queue has been used, or when [`DELAY`] has passed: a guest
//! that has no room left is not kept waiting.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// How long a guest waits for the news, at most.
const DELAY: Duration = Duration::from_millis(2);

/// What the guest has not been told.
pub(crate) struct Completions {
    owed: u16,
    late: bool,
    armed: bool,
    timer: OwnedFd,
}

impl Completions {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            owed: 0,
            late: false,
            armed: false,
            timer: timer()?,
        })
    }

    /// Readable when [`fired`](Self::fired) is to be called.
    pub(crate) fn timer_fd(&self) -> &OwnedFd {
        &self.timer
    }

    /// So many chains more of a queue of `size` have been used. Gives whether the guest is to be told now.
    pub(crate) fn used(&mut self, chains: u16, size: u16) -> bool {
        self.owed = self.owed.saturating_add(chains);
        if self.owed == 0 {
            self.late = false;
            return false;
        }
        if self.late || self.owed >= size / 4 {
            self.owed = 0;
            self.late = false;
            return true;
        }
        if !self.armed {
            // Without a timer the guest is told at once.
            self.armed = arm(&self.timer, DELAY).is_ok();
            self.late = !self.armed;
        }
        false
    }

    /// Time is up.
    pub(crate) fn fired(&mut self) {
        let mut ticks = [0; 8];
        let _ = rustix::io::read(&self.timer, &mut ticks);
        self.armed = false;
        self.late = true;
    }
}

/// A timer that is not armed.
pub(crate) fn timer() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    Ok(timerfd_create(TimerfdClockId::Monotonic, flags)?)
}

/// Lets the timer fire once, after `delay`.
pub(crate) fn arm(timer: &OwnedFd, delay: Duration) -> io::Result<()> {
    let once = Itimerspec {
        it_interval: Timespec::default(),
        it_value: Timespec::try_from(delay).map_err(io::Error::other)?,
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_told_when_a_quarter_of_its_queue_is_used() {
        let mut completions = Completions::new().unwrap();
        assert!(!completions.used(0, 128));
        assert!(!completions.used(31, 128));
        assert!(completions.used(1, 128));
        assert!(!completions.used(31, 128), "counted anew");
        assert!(completions.used(u16::MAX, 128));
    }

    #[test]
    fn the_guest_is_told_of_one_packet_when_its_time_is_up() {
        let mut completions = Completions::new().unwrap();
        assert!(!completions.used(1, 128));
        let mut polled = [rustix::event::PollFd::new(
            completions.timer_fd(),
            rustix::event::PollFlags::IN,
        )];
        assert_eq!(rustix::event::poll(&mut polled, None), Ok(1));
        completions.fired();
        assert!(completions.used(0, 128));
        assert!(!completions.used(0, 128), "it knows");
        assert!(!completions.used(1, 128));
    }
}
