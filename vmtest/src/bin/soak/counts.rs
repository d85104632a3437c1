//! What is counted on both sides, and how much of it may come on top.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use opengcs::UtilityVm;

/// One count.
struct Count {
    name: &'static str,
    value: u64,
    /// What it may grow by; 0 for things that are there or not.
    may_grow: u64,
}

/// All counts at one moment.
pub(crate) struct Counts(Vec<Count>);

/// Prints a name and a number a line, of the guest's state.
const SCRIPT: &str = r#"
for p in /proc/[0-9]*; do
  line=$(tr '\0' ' ' < $p/cmdline 2>/dev/null)
  [ -n "$line" ] && echo "process $p"
  case "$line" in
    *serve*) if [ "$(grep -c '^PPid:.1$' $p/status)" = 1 ]; then
      echo "agent_files $(ls $p/fd | wc -l)"
      echo "agent_threads $(ls $p/task | wc -l)"
      echo "agent_kib $(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' $p/status)"
    fi;;
  esac
done > /tmp/soak
grep -v '^process' /tmp/soak
echo "processes $(grep -c '^process' /tmp/soak)"
rm /tmp/soak
echo "mounts $(wc -l < /proc/mounts)"
echo "disks $(ls /sys/block | wc -l)"
echo "scsi_devices $(ls /sys/bus/scsi/devices | wc -l)"
echo "device_files $(ls -R /dev | wc -l)"
echo "folders $(ls -R /mnt /run /tmp | wc -l)"
sed -n 's/^MemTotal: *\([0-9]*\).*/total \1/p; s/^MemAvailable: *\([0-9]*\).*/available \1/p; s/^SUnreclaim: *\([0-9]*\).*/slab_kib \1/p' /proc/meminfo
"#;

/// The guest's counts, as the script names them, and how we do.
const GUEST: [(&str, &str, u64); 10] = [
    ("agent_files", "agent's open files", 0),
    ("agent_threads", "agent's threads", 2),
    ("agent_kib", "agent's memory, KiB", 2048),
    ("processes", "guest's processes", 0),
    ("mounts", "guest's mounts", 0),
    ("disks", "guest's disks", 0),
    ("scsi_devices", "guest's SCSI devices", 0),
    ("device_files", "guest's device files", 0),
    ("folders", "guest's files in memory", 0),
    ("slab_kib", "guest's kernel memory, KiB", 4096),
];

impl Counts {
    /// Counts everything now. The guest's caches are dropped before, for they are meant to grow.
    pub(crate) async fn take(vm: &UtilityVm) -> Result<Self> {
        let script = format!("sync; echo 3 > /proc/sys/vm/drop_caches; {SCRIPT}");
        let output = vm.output(["sh", "-c", &script], 64 << 10).await?;
        let text = String::from_utf8(output.stdout)?;
        let guest = |name: &str| -> Result<u64> {
            text.lines()
                .filter_map(|line| line.split_once(' '))
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| value.trim().parse().ok())
                .with_context(|| format!("the guest did not say {name}: {text}"))
        };
        let hypervisor = vm.describe().process_id.context("QEMU has gone")?;
        let qemu = hypervisor.to_string();
        let mut counts = Vec::new();
        let mut add = |name, value, may_grow| {
            counts.push(Count {
                name,
                value,
                may_grow,
            });
        };
        add("our open files", entries("self", "fd")?, 0);
        add("our threads", entries("self", "task")?, 16);
        add("our memory, KiB", memory("self")?, 8192);
        add("QEMU's open files", entries(&qemu, "fd")?, 0);
        // A pool of workers comes and goes with the load.
        add("QEMU's threads", entries(&qemu, "task")?, 64);
        add("QEMU's memory, KiB", memory(&qemu)?, 24_576);
        for (key, name, may_grow) in GUEST {
            add(name, guest(key)?, may_grow);
        }
        let used = guest("total")?.saturating_sub(guest("available")?);
        add("guest's memory in use, KiB", used, 8192);
        Ok(Self(counts))
    }

    /// What is larger than it may be, a line for each.
    pub(crate) fn grown_since(&self, first: &Self) -> Vec<String> {
        self.with(first)
            .filter(|(now, before)| now.value > before.value + now.may_grow)
            .map(|(now, before)| {
                format!("{} went from {} to {}", now.name, before.value, now.value)
            })
            .collect()
    }

    /// What has changed, on one line.
    pub(crate) fn in_one_line(&self, first: &Self) -> String {
        let changed: Vec<_> = self
            .with(first)
            .filter(|(now, before)| now.value != before.value)
            .map(|(now, before)| format!("{} {}→{}", now.name, before.value, now.value))
            .collect();
        match changed.is_empty() {
            true => "as at first".to_owned(),
            false => changed.join(", "),
        }
    }

    fn with<'a>(&'a self, first: &'a Self) -> impl Iterator<Item = (&'a Count, &'a Count)> {
        self.0.iter().zip(&first.0)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for count in &self.0 {
            writeln!(f, "  {:<28} {:>9}", count.name, count.value)?;
        }
        Ok(())
    }
}

/// What the guest's kernel says of every disk that was taken out of it before the machine takes it away,
/// as it should be; and of every boot without a BIOS.
const EXPECTED: [&str; 2] = [
    "virtio_scsi: SCSI device",
    "PCI: Fatal: No config space access function found",
];

/// How many complaints (errors and worse) the guest's kernel has had since this was asked last.
pub(crate) async fn complaints(vm: &UtilityVm) -> Result<usize> {
    let output = vm.output(["dmesg", "-r", "-c"], 1 << 20).await?;
    ensure!(output.status.success(), "dmesg: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = text.lines().filter(|line| is_complaint(line)).collect();
    for line in lines.iter().take(5) {
        println!("  the guest's kernel: {line}");
    }
    Ok(lines.len())
}

/// The level is the lowest three bits of the number in front; 3 is an error.
fn is_complaint(line: &str) -> bool {
    let level = line
        .strip_prefix('<')
        .and_then(|rest| rest.split_once('>'))
        .and_then(|(level, _)| level.parse::<u32>().ok());
    level.is_some_and(|level| level & 7 <= 3) && !EXPECTED.iter().any(|words| line.contains(words))
}

fn entries(process: &str, folder: &str) -> Result<u64> {
    let path = format!("/proc/{process}/{folder}");
    let entries = std::fs::read_dir(&path).with_context(|| format!("cannot list {path}"))?;
    Ok(u64::try_from(entries.count())?)
}

/// A process's own memory in KiB, without the guest's, which it shares.
fn memory(process: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .with_context(|| format!("{path} has no RssAnon"))
}
