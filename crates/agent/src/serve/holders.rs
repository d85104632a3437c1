//! Who keeps a mount or a disk busy, for the error that names them.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use super::mounts::Mounted;

/// How many are named.
const MOST: usize = 8;

/// The processes that have something of the mount at `point` open, and the mounts below it.
pub(super) fn of(point: &Path) -> String {
    let device = fs::metadata(point).ok().map(|metadata| metadata.dev());
    let mut names = processes(|process| holds(process, point, device));
    let below = Mounted::read().unwrap_or_default();
    names.extend(
        below
            .iter()
            .filter(|mounted| mounted.point != point && mounted.point.starts_with(point))
            .map(|mounted| format!("the mount at {}", mounted.point.display())),
    );
    listed(names)
}

/// What has a disk to itself: mounts of it, and devices made of it.
pub(super) fn of_disk(disk: &Path) -> String {
    let Ok(metadata) = fs::metadata(disk) else {
        return listed(Vec::new());
    };
    let numbers = |number| {
        format!(
            "{}:{}",
            rustix::fs::major(number),
            rustix::fs::minor(number)
        )
    };
    let own = numbers(metadata.rdev());
    // Partitions count as well: `sda1` is in the folder of `sda`.
    let folder = PathBuf::from(format!("/sys/dev/block/{own}"));
    let entries = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    let mut devices = vec![own];
    devices.extend(entries(folder.clone()).filter_map(|entry| {
        let number = fs::read_to_string(entry.path().join("dev")).ok()?;
        Some(number.trim().to_owned())
    }));
    let mounts = Mounted::read().unwrap_or_default();
    let mut names: Vec<String> = mounts
        .iter()
        .filter(|mounted| devices.contains(&mounted.device))
        .map(|mounted| format!("the mount at {}", mounted.point.display()))
        .collect();
    names.extend(
        entries(folder.join("holders"))
            .map(|entry| format!("the device {}", entry.file_name().to_string_lossy())),
    );
    let number = metadata.rdev();
    names.extend(processes(|process| has_open(process, number)));
    listed(names)
}

/// The processes that have a block device open; `None` when there are none, or it is no device.
pub(super) fn of_device(device: &Path) -> Option<String> {
    let metadata = fs::metadata(device).ok()?;
    if !metadata.file_type().is_block_device() {
        return None;
    }
    let names = processes(|process| has_open(process, metadata.rdev()));
    (!names.is_empty()).then(|| listed(names))
}

/// The processes of which `holds` is true, given their folders in `/proc`.
fn processes(holds: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut names = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if holds(&process.path()) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            names.push(format!("process {pid} ({})", command.trim()));
        }
    }
    names
}

/// The first names, and how many there are besides.
fn listed(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    match (names.is_empty(), more) {
        (true, _) => "nobody that could be found".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

fn holds(process: &Path, point: &Path, device: Option<u64>) -> bool {
    let held = |link: &Path| {
        let target = fs::read_link(link);
        target.is_ok_and(|target| target.starts_with(point))
            || (device.is_some() && fs::metadata(link).ok().map(|held| held.dev()) == device)
    };
    if ["cwd", "root", "exe"]
        .iter()
        .any(|name| held(&process.join(name)))
        || files(process).any(|file| held(&file))
    {
        return true;
    }
    let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
    maps.lines()
        .filter_map(|line| line.split_once('/'))
        .any(|(_, path)| Path::new(&format!("/{path}")).starts_with(point))
}

/// Whether a process has the block device of this number open.
fn has_open(process: &Path, number: u64) -> bool {
    files(process).any(|file| {
        fs::metadata(file).is_ok_and(|metadata| {
            metadata.file_type().is_block_device() && metadata.rdev() == number
        })
    })
}

/// The files that a process has open.
fn files(process: &Path) -> impl Iterator<Item = PathBuf> {
    let files = fs::read_dir(process.join("fd"));
    files
        .into_iter()
        .flatten()
        .flatten()
        .map(|file| file.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_open_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = fs::File::create(folder.path().join("open")).unwrap();
        let path = folder.path().canonicalize().unwrap();
        let me = Path::new("/proc/self");
        assert!(holds(me, &path, None));
        drop(file);
        assert!(!holds(me, &path, None));
    }

    #[test]
    fn what_is_no_device_is_held_by_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let _open = fs::File::open(&file).unwrap();
        assert_eq!(of_device(&file), None);
        assert_eq!(of_device(Path::new("/no/such/device")), None);
    }

    #[test]
    fn many_names_are_counted() {
        let names = |count: usize| (0..count).map(|n| n.to_string()).collect();
        assert_eq!(listed(names(2)), "0, 1");
        assert!(listed(names(11)).ends_with("7 and 3 more"));
    }
}
