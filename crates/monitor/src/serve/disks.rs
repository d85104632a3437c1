//! Which disk a client means, and how it is described on both sides.

use std::path::{Path, PathBuf};

use opengcs::{Attachment, GuestPlace, HotAdd};

use crate::error::{Error, ErrorKind, Result};
use crate::proto;

/// Where disks are mounted, when nobody says where.
const MOUNTS: &str = "/mnt";

impl From<Attachment> for proto::Disk {
    fn from(disk: Attachment) -> Self {
        Self {
            file: disk.host_path.to_string_lossy().into_owned(),
            controller: disk.controller.into(),
            lun: disk.lun.into(),
            guest_path: disk.place.path().to_owned(),
            mounted: matches!(disk.place, GuestPlace::Mounted(_)),
            read_only: disk.read_only,
            partition: disk.partition,
            size: disk.size.unwrap_or(0),
            verity_root: disk.verity_root.unwrap_or_default(),
        }
    }
}

/// What is to be added.
pub(super) fn wanted(request: proto::AddDiskRequest) -> Result<HotAdd> {
    let file = PathBuf::from(&request.file);
    if !file.is_absolute() {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{:?} is no absolute path, and the monitor is in no folder of yours",
                request.file
            ),
        ));
    }
    let mut disk = HotAdd::new(&file)
        .read_only(request.read_only)
        .partition(request.partition);
    disk = match (request.mount, request.guest_path) {
        (true, path) if path.is_empty() => disk.mount(usual_place(&file)),
        (true, path) => disk.mount(path),
        (false, path) if path.is_empty() => disk,
        (false, path) => disk.link(path),
    };
    if !request.filesystem.is_empty() {
        disk = disk.filesystem(request.filesystem);
    }
    for option in request.mount_options {
        disk = disk.option(option);
    }
    if !request.verity_root.is_empty() {
        disk = disk.verity_root(request.verity_root);
    }
    Ok(disk)
}

/// Below /mnt by the file's name, without what stands for its format.
fn usual_place(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let plain = |c: char| {
        if c.is_control() || c.is_whitespace() || c == '/' || c == char::REPLACEMENT_CHARACTER {
            '_'
        } else {
            c
        }
    };
    let name: String = stem.chars().map(plain).collect();
    format!("{MOUNTS}/{name}")
}

/// The disk that is to be removed: by its place in the guest, or by its file.
pub(super) fn meant(
    request: &proto::RemoveDiskRequest,
    disks: Vec<Attachment>,
) -> Result<Attachment> {
    let text = request.place_or_file.as_str();
    let said = match request.as_said.as_str() {
        "" => text,
        said => said,
    };
    let place = match said.trim_end_matches('/') {
        "" => said,
        place => place,
    };
    let file = std::fs::canonicalize(text).unwrap_or_else(|_| PathBuf::from(text));
    let mut found: Vec<_> = disks
        .into_iter()
        .filter(|disk| disk.place.path() == place || disk.host_path == file)
        .collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "the VM has no disk at {said}, and none of a file {}",
                file.display()
            ),
        )
        .hint("`opengcs disk ls` lists those that it has")),
        _ => Err(Error::new(
            ErrorKind::Invalid,
            format!("{said} is one disk's place in the VM and another's file"),
        )
        .hint("name the one by its other path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(file: &str, place: &str) -> Attachment {
        Attachment {
            host_path: file.into(),
            controller: 0,
            lun: 0,
            place: GuestPlace::Mounted(place.into()),
            read_only: false,
            partition: 0,
            size: None,
            verity_root: None,
        }
    }

    fn remove(place_or_file: &str, as_said: &str) -> proto::RemoveDiskRequest {
        proto::RemoveDiskRequest {
            place_or_file: place_or_file.into(),
            as_said: as_said.into(),
        }
    }

    #[test]
    fn a_disk_is_meant_by_its_place_or_its_file_and_never_by_guessing() {
        let disks = || vec![disk("/no/a.vhd", "/mnt/a"), disk("/no/b.vhd", "/no/a.vhd")];
        let by = |request| meant(&request, disks()).map(|disk| disk.host_path);
        assert_eq!(by(remove("/mnt/a", "")).unwrap(), Path::new("/no/a.vhd"));
        assert_eq!(by(remove("/mnt/a/", "")).unwrap(), Path::new("/no/a.vhd"));
        assert_eq!(
            by(remove("/no/b.vhd", "b.vhd")).unwrap(),
            Path::new("/no/b.vhd")
        );
        let none = by(remove("/no/c.vhd", "c.vhd")).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::NotFound);
        assert!(none.to_string().contains("c.vhd"), "{none}");
        assert_eq!(
            by(remove("/no/a.vhd", "")).unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }

    #[test]
    fn a_disk_is_mounted_by_its_name_when_nobody_says_where() {
        assert_eq!(usual_place(Path::new("/x/layer.vhd")), "/mnt/layer");
        assert_eq!(usual_place(Path::new("/x/a b\n.vhdx")), "/mnt/a_b_");
        assert!(
            wanted(proto::AddDiskRequest {
                file: "a.vhd".into(),
                ..Default::default()
            })
            .is_err()
        );
    }
}
