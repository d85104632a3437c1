//! Decides how QEMU is told of a disk: block nodes and devices, with the driver always named.

use serde_json::{Value, json};

use crate::disk::{DiskFormat, DiskSpec, Slot};
use crate::error::{Error, ErrorKind, Result};

/// The footer at the end of a fixed VHD, in bytes.
const VHD_FOOTER: u64 = 512;

/// The name of a slot's block node. Names are never used twice in a machine's life, so that a command
/// about an old disk cannot reach a new one.
pub(crate) fn node_name(slot: Slot, generation: u64) -> String {
    format!("disk-{}-{}-{generation}", slot.controller, slot.lun)
}

/// The name of a slot's device.
pub(crate) fn device_name(slot: Slot, generation: u64) -> String {
    format!("scsi-{}-{}-{generation}", slot.controller, slot.lun)
}

/// The name of the empty node that a slot's node gets in place of its file.
fn empty_name(slot: Slot, generation: u64) -> String {
    format!("empty-{}-{}-{generation}", slot.controller, slot.lun)
}

/// The arguments of `blockdev-add`.
///
/// The named node is always a raw one, below which the file can be replaced by nothing ([`emptied`]).
///
/// A fixed VHD is a window into a raw file, because QEMU's own driver takes the size from the geometry,
/// which may be absent. Formats are named and never probed: see [`DiskFormat`].
pub(crate) fn node(disk: &DiskSpec, name: &str) -> Result<Value> {
    let Some(path) = disk.path.to_str() else {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "disk path {} is not UTF-8, which QEMU's protocol needs",
                disk.path.display()
            ),
        ));
    };
    let mut below = json!({
        "driver": "file",
        "filename": path,
        "read-only": disk.read_only,
        "discard": "unmap",
    });
    let format = match disk.format {
        DiskFormat::Raw | DiskFormat::FixedVhd => None,
        DiskFormat::DynamicVhd => Some("vpc"),
        DiskFormat::Vhdx => Some("vhdx"),
    };
    if let Some(driver) = format {
        below = json!({
            "driver": driver,
            "read-only": disk.read_only,
            "discard": "unmap",
            "file": below,
        });
    }
    let mut node = json!({
        "driver": "raw",
        "node-name": name,
        "read-only": disk.read_only,
        "discard": "unmap",
        "file": below,
    });
    if let (DiskFormat::Raw | DiskFormat::FixedVhd, Some(size), Some(node)) =
        (disk.format, disk.size, node.as_object_mut())
    {
        node.insert("offset".to_owned(), 0.into());
        node.insert("size".to_owned(), size.into());
    }
    Ok(node)
}

/// What lets go of a node's file while a device still has the node: the empty node to be added, and the
/// arguments of `blockdev-reopen` that put it in the file's place. The file, which no one else has, is closed
/// then. A guest that looks there all the same reads zeros.
pub(crate) fn emptied(node: &Value, slot: Slot, generation: u64) -> (Value, Value) {
    let name = empty_name(slot, generation);
    let empty = json!({
        "driver": "null-co",
        "node-name": name,
        "read-zeroes": true,
        // Larger than any window into it.
        "size": 1_u64 << 60,
    });
    let mut node = node.clone();
    if let Some(node) = node.as_object_mut() {
        node.insert("file".to_owned(), name.into());
    }
    (empty, json!({ "options": [node] }))
}

/// The arguments of `blockdev-del` for what a slot has had, in order.
pub(crate) fn remains(slot: Slot, generation: u64) -> [Value; 2] {
    [node_name(slot, generation), empty_name(slot, generation)]
        .map(|name| json!({ "node-name": name }))
}

/// The guest-visible size of a fixed VHD or raw disk in a file of `length` bytes.
pub(crate) fn window(disk: &DiskSpec, length: u64) -> Result<Option<u64>> {
    let bad = |message: &str| {
        Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("disk {} {message}", disk.path.display()),
        ))
    };
    let available = match disk.format {
        DiskFormat::Raw => length,
        DiskFormat::FixedVhd => match length.checked_sub(VHD_FOOTER) {
            Some(size) => size,
            None => return bad("is too short for a vhd: it has no footer"),
        },
        DiskFormat::DynamicVhd | DiskFormat::Vhdx => return Ok(None),
    };
    let size = disk.size.unwrap_or(available);
    if size == 0 {
        return bad("is empty");
    }
    if size > available {
        return bad(&format!(
            "holds {available} bytes, not the {size} asked for"
        ));
    }
    if !size.is_multiple_of(512) {
        return bad(&format!("has {size} bytes, which is not a multiple of 512"));
    }
    Ok((disk.format == DiskFormat::FixedVhd || disk.size.is_some()).then_some(size))
}

/// The arguments of `device_add`. Errors go to the guest instead of pausing it: a full host disk must not
/// hang the machine.
pub(crate) fn device(slot: Slot, generation: u64) -> Value {
    json!({
        "driver": "scsi-hd",
        "id": device_name(slot, generation),
        "bus": format!("scsi{}.0", slot.controller),
        "drive": node_name(slot, generation),
        "channel": 0,
        "scsi-id": 0,
        "lun": slot.lun,
        "werror": "report",
        "rerror": "report",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot {
        controller: 1,
        lun: 63,
    };

    fn disk(format: DiskFormat) -> DiskSpec {
        DiskSpec::new("/d", format, true)
    }

    #[test]
    fn the_driver_is_always_named() {
        for (format, driver) in [
            (DiskFormat::Raw, "file"),
            (DiskFormat::FixedVhd, "file"),
            (DiskFormat::DynamicVhd, "vpc"),
            (DiskFormat::Vhdx, "vhdx"),
        ] {
            let node = node(&disk(format), "n").unwrap();
            assert_eq!(node["driver"], "raw");
            let mut below = &node;
            while !below["file"].is_null() {
                assert_eq!(below["read-only"], true);
                below = &below["file"];
            }
            assert_eq!(node["file"]["driver"], driver);
            assert_eq!(below["driver"], "file");
            assert_eq!(below["read-only"], true);
            assert_eq!(below["filename"], "/d");
        }
    }

    #[test]
    fn only_the_file_of_an_emptied_node_changes() {
        let mut disk = disk(DiskFormat::FixedVhd);
        disk.size = Some(1024);
        let node = node(&disk, "disk-1-63-7").unwrap();
        let (empty, reopen) = emptied(&node, SLOT, 7);
        assert_eq!(empty["read-zeroes"], true);
        let mut expected = node;
        expected["file"] = empty["node-name"].clone();
        assert_eq!(reopen["options"][0], expected);
        let names = remains(SLOT, 7);
        assert_eq!(names[0]["node-name"], expected["node-name"]);
        assert_eq!(names[1]["node-name"], empty["node-name"]);
    }

    #[test]
    fn a_fixed_vhd_is_a_window_without_its_footer() {
        let mut disk = disk(DiskFormat::FixedVhd);
        disk.size = window(&disk, 1024 + 512).unwrap();
        let node = node(&disk, "n").unwrap();
        assert_eq!(node["offset"], 0);
        assert_eq!(node["size"], 1024);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        assert!(window(&disk(DiskFormat::FixedVhd), 100).is_err());
        assert!(window(&disk(DiskFormat::FixedVhd), 512).is_err());
        assert!(window(&disk(DiskFormat::Raw), 0).is_err());
        assert!(window(&disk(DiskFormat::Raw), 1000).is_err());
        assert_eq!(window(&disk(DiskFormat::Vhdx), 0).unwrap(), None);
        assert_eq!(window(&disk(DiskFormat::Raw), 1024).unwrap(), None);
    }

    #[test]
    fn a_device_stands_at_its_slot() {
        let device = device(SLOT, 7);
        assert_eq!(device["bus"], "scsi1.0");
        assert_eq!(device["lun"], 63);
        assert_eq!(device["drive"], "disk-1-63-7");
    }
}
