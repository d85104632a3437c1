//! What a container's control group (version 2) tells of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use opengcs_bridge::message::{
    CpuUsage, GuestCpu, GuestMemory, GuestMetrics, GuestPids, MemoryUsage,
};

const ROOT: &str = "/sys/fs/cgroup";

/// The folder of the control group that a process is in.
pub(super) fn of(pid: u32) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // All processes of the machine are no container's.
    (!path.is_empty()).then(|| Path::new(ROOT).join(path))
}

/// The processes of a group and of those below it.
pub(super) fn processes(group: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    let mut folders = vec![group.to_owned()];
    while let Some(folder) = folders.pop() {
        let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(list.lines().filter_map(|line| line.parse::<u32>().ok()));
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(below.map(|entry| entry.path()));
    }
    // 0 is one that this PID namespace does not see.
    found.retain(|pid| *pid != 0);
    found.sort_unstable();
    found.dedup();
    found
}

/// What a group has used.
pub(super) fn metrics(group: &Path) -> GuestMetrics {
    let read = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
    GuestMetrics {
        pids: GuestPids {
            current: number(&read("pids.current")),
            limit: number(&read("pids.max")),
        },
        cpu: cpu(&read("cpu.stat")),
        memory: memory(
            &read("memory.stat"),
            MemoryUsage {
                limit: number(&read("memory.max")),
                usage: number(&read("memory.current")),
                max: number(&read("memory.peak")),
            },
        ),
    }
}

/// A number, or the largest for "max".
fn number(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        number => number.parse().unwrap_or(0),
    }
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map_or(0, number)
}

fn cpu(stat: &str) -> GuestCpu {
    let nanoseconds = |name| field(stat, name).saturating_mul(1000);
    GuestCpu {
        usage: CpuUsage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
        },
    }
}

fn memory(stat: &str, usage: MemoryUsage) -> GuestMemory {
    GuestMemory {
        cache: field(stat, "file"),
        rss: field(stat, "anon"),
        usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_files_become_statistics() {
        let group = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(group.path().join(name), text).unwrap();
        write("pids.current", "3\n");
        write("pids.max", "max\n");
        write("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\n");
        write("memory.current", "4096\n");
        write("memory.max", "8192\n");
        write("memory.stat", "anon 100\nfile 200\nfile_mapped 7\n");
        write("cgroup.procs", "12\n0\n7\n");
        fs::create_dir(group.path().join("below")).unwrap();
        write("below/cgroup.procs", "9\n");
        let metrics = metrics(group.path());
        assert_eq!((metrics.pids.current, metrics.pids.limit), (3, u64::MAX));
        assert_eq!(metrics.cpu.usage.total, 30_000);
        assert_eq!((metrics.memory.rss, metrics.memory.cache), (100, 200));
        assert_eq!(metrics.memory.usage.limit, 8192);
        assert_eq!(processes(group.path()), [7, 9, 12]);
    }

    #[test]
    fn a_group_that_has_gone_gives_zeros() {
        let metrics = metrics(Path::new("/nowhere"));
        assert_eq!(metrics, GuestMetrics::default());
        assert!(processes(Path::new("/nowhere")).is_empty());
    }
}
