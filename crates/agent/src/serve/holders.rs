//! Who keeps a mount busy, for the error that names them.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::mounts::Mounted;

/// How many are named.
const MOST: usize = 8;

/// The processes that have something of the mount at `point` open, and the mounts below it.
pub(super) fn of(point: &Path) -> String {
    let mut names: Vec<String> = Vec::new();
    let device = fs::metadata(point).ok().map(|metadata| metadata.dev());
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if holds(&process.path(), point, device) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            names.push(format!("process {pid} ({})", command.trim()));
        }
    }
    let below = Mounted::read().unwrap_or_default();
    names.extend(
        below
            .iter()
            .filter(|mounted| mounted.point != point && mounted.point.starts_with(point))
            .map(|mounted| format!("the mount at {}", mounted.point.display())),
    );
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    match (names.is_empty(), more) {
        (true, _) => "nobody that could be found".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

fn holds(process: &Path, point: &Path, device: Option<u64>) -> bool {
    let held = |link: PathBuf| {
        let target = fs::read_link(&link);
        target.is_ok_and(|target| target.starts_with(point))
            || (device.is_some() && fs::metadata(&link).ok().map(|held| held.dev()) == device)
    };
    if ["cwd", "root", "exe"]
        .iter()
        .any(|name| held(process.join(name)))
    {
        return true;
    }
    let files = fs::read_dir(process.join("fd"));
    if files
        .into_iter()
        .flatten()
        .flatten()
        .any(|file| held(file.path()))
    {
        return true;
    }
    let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
    maps.lines()
        .filter_map(|line| line.split_once('/'))
        .any(|(_, path)| Path::new(&format!("/{path}")).starts_with(point))
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
}
