//! `GetProperties`: the processes of the host, and what the machine has used.

use std::fs;

use opengcs_bridge::message::{
    CpuUsage, GuestCpu, GuestMemory, GuestMetrics, GuestPids, MemoryUsage, Nested, ProcessDetails,
    Properties, PropertyQuery,
};

use super::Agent;

/// The nanoseconds of one tick of `/proc/stat`, which counts in hundredths of a second.
const TICK: u64 = 10_000_000;

pub(super) fn answer(agent: &Agent, query: &PropertyQuery) -> Nested<Properties> {
    let mut properties = Properties::default();
    for property in &query.property_types {
        match property.as_str() {
            "ProcessList" => {
                properties.process_list = agent
                    .processes
                    .running()
                    .into_iter()
                    .map(|process_id| ProcessDetails { process_id })
                    .collect();
            }
            "Statistics" => properties.metrics = Some(metrics()),
            _ => {}
        }
    }
    Nested(properties)
}

fn metrics() -> GuestMetrics {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    GuestMetrics {
        pids: pids(),
        cpu: cpu(&read("/proc/stat")),
        memory: memory(&read("/proc/meminfo")),
    }
}

fn pids() -> GuestPids {
    let current = fs::read_dir("/proc").map_or(0, |entries| {
        entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                name.to_str()
                    .is_some_and(|name| name.parse::<u32>().is_ok())
            })
            .count()
    });
    let limit = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    GuestPids {
        current: u64::try_from(current).unwrap_or(u64::MAX),
        limit: limit.trim().parse().unwrap_or(0),
    }
}

/// Of `/proc/stat`'s first line: user, nice, system, idle, iowait, irq, softirq, steal.
fn cpu(stat: &str) -> GuestCpu {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map(|word| word.parse().unwrap_or(0))
        .collect();
    let of = |index: usize| ticks.get(index).copied().unwrap_or(0).saturating_mul(TICK);
    let user = of(0).saturating_add(of(1));
    let kernel = of(2).saturating_add(of(5)).saturating_add(of(6));
    GuestCpu {
        usage: CpuUsage {
            total: user.saturating_add(kernel),
            kernel,
            user,
        },
    }
}

fn memory(meminfo: &str) -> GuestMemory {
    let bytes = |name: &str| -> u64 {
        meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
            .saturating_mul(1024)
    };
    let limit = bytes("MemTotal");
    GuestMemory {
        cache: bytes("Cached").saturating_add(bytes("Buffers")),
        rss: bytes("AnonPages"),
        usage: MemoryUsage {
            limit,
            usage: limit.saturating_sub(bytes("MemAvailable")),
            max: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_in_bytes_and_nanoseconds() {
        let cpu = cpu("cpu  100 20 30 4000 5 6 7 0 0 0\ncpu0 1 1 1\n").usage;
        assert_eq!((cpu.user, cpu.kernel), (1_200_000_000, 430_000_000));
        assert_eq!(cpu.total, 1_630_000_000);
        let memory = memory("MemTotal: 1000 kB\nMemAvailable: 600 kB\nCached: 100 kB\n");
        assert_eq!(memory.usage.limit, 1_024_000);
        assert_eq!(memory.usage.usage, 409_600);
        assert_eq!(memory.cache, 102_400);
    }

    #[test]
    fn odd_files_give_zeros() {
        assert_eq!(cpu(""), GuestCpu::default());
        assert_eq!(cpu("cpu x y"), GuestCpu::default());
        assert_eq!(memory("MemTotal: lots"), GuestMemory::default());
    }
}
