//! Decides how fast this host's time-stamp counter runs.
#![allow(unsafe_code, reason = "the counter is read by an intrinsic")]
#![allow(
    unused_unsafe,
    reason = "newer compilers have the intrinsics safe, older ones unsafe"
)]

use std::arch::x86_64::{__cpuid, _rdtsc};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The rate in kHz: as the processor tells it, else measured once (5 ms). `None` where the counter does not
/// run at a constant rate.
pub(crate) fn khz() -> Option<u32> {
    static RATE: OnceLock<Option<u32>> = OnceLock::new();
    *RATE.get_or_init(|| {
        // SAFETY: every x86-64 processor has `cpuid`.
        let highest = unsafe { __cpuid(0x8000_0000) }.eax;
        // SAFETY: as above.
        let invariant =
            highest >= 0x8000_0007 && unsafe { __cpuid(0x8000_0007) }.edx & (1 << 8) != 0;
        invariant.then(|| told().or_else(measured)).flatten()
    })
}

/// Leaf 0x15: the counter's ratio to a crystal whose rate is in ECX.
fn told() -> Option<u32> {
    // SAFETY: as in `khz`.
    let highest = unsafe { __cpuid(0) }.eax;
    if highest < 0x15 {
        return None;
    }
    // SAFETY: as in `khz`; the leaf exists.
    let leaf = unsafe { __cpuid(0x15) };
    ratio(leaf.eax, leaf.ebx, leaf.ecx)
}

fn ratio(denominator: u32, numerator: u32, crystal_hz: u32) -> Option<u32> {
    let hz = u64::from(crystal_hz)
        .checked_mul(u64::from(numerator))?
        .checked_div(u64::from(denominator))?;
    u32::try_from(hz / 1000).ok().filter(|khz| *khz > 0)
}

fn measured() -> Option<u32> {
    let sample = || {
        // The narrowest of a few brackets: we may be interrupted between the two clocks.
        (0..8)
            .map(|_| {
                // SAFETY: every x86-64 processor has `rdtsc`.
                let before = unsafe { _rdtsc() };
                let now = Instant::now();
                // SAFETY: as above.
                let after = unsafe { _rdtsc() };
                (after.saturating_sub(before), before, now)
            })
            .min_by_key(|(width, _, _)| *width)
            .map(|(width, before, now)| (before + width / 2, now))
    };
    let (ticks, time) = sample()?;
    std::thread::sleep(Duration::from_millis(5));
    let (later_ticks, later) = sample()?;
    let elapsed = later.duration_since(time).as_nanos();
    let ticks = u128::from(later_ticks.checked_sub(ticks)?);
    u32::try_from(ticks.checked_mul(1_000_000)?.checked_div(elapsed)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_of_leaf_15_is_a_rate() {
        assert_eq!(ratio(2, 250, 24_000_000), Some(3_000_000));
        assert_eq!(ratio(0, 0, 0), None);
        assert_eq!(ratio(2, 250, 0), None);
    }

    #[test]
    fn two_measurements_agree() {
        let (a, b) = (measured().unwrap(), measured().unwrap());
        let difference = a.abs_diff(b);
        assert!(difference < a / 100, "{a} and {b} kHz");
    }
}
