//! `reclaim`: room comes back, the tar stays the same, and what is in use is left alone.

use std::fs;

use crate::fixture::{Place, e2fsck, tar};

/// Whether files can have holes here: on Windows, raw disks are made so that they can where that is to be had.
#[cfg(windows)]
fn has_holes(place: &Place) -> bool {
    use std::os::windows::fs::MetadataExt as _;
    const SPARSE: u32 = 0x200;
    let found = fs::metadata(place.path("a.img")).unwrap();
    found.file_attributes() & SPARSE != 0
}

#[cfg(not(windows))]
fn has_holes(_place: &Place) -> bool {
    true
}

#[test]
fn a_disk_gets_smaller_and_stays_what_it_is() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    place.ok(&["tar2vhd", "-i", "layer.tar", "-o", "a.img", "--size", "64M"]);
    let before = place.opengcs(["vhd2tar", "a.img"]).output().unwrap().stdout;
    // What is free holds bytes of files that were deleted.
    let inspected = place.ok(&["inspect", "a.img", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    let free = found["filesystem"]["free"].as_u64().unwrap();
    let mut bytes = fs::read(place.path("a.img")).unwrap();
    let spoiled = 16 << 20..32 << 20;
    assert!(bytes[spoiled.clone()].iter().all(|byte| *byte == 0));
    bytes[spoiled].fill(7);
    fs::write(place.path("a.img"), bytes).unwrap();
    if has_holes(&place) {
        let done = place.ok(&["reclaim", "a.img", "--json"]);
        let done: serde_json::Value = serde_json::from_str(&done).unwrap();
        assert_eq!(
            (&done["event"], &done["file"]),
            (&"done".into(), &"a.img".into())
        );
        assert_eq!(done["free"], free);
        assert_eq!(done["size"], 64 << 20);
        // How much a file takes is not known on Windows.
        if cfg!(unix) {
            assert!(done["gained"].as_u64().unwrap() >= 16 << 20, "{done}");
        }
        let line = place.ok(&["reclaim", "a.img"]);
        let word = if cfg!(unix) { " gained" } else { "given back" };
        assert!(line.contains("a.img: ") && line.contains(word), "{line}");
    } else {
        place.fails(&["reclaim", "a.img"], 1, &["a.img", "cannot make holes"]);
    }
    let after = place.opengcs(["vhd2tar", "a.img"]).output().unwrap().stdout;
    assert!(after == before);
    e2fsck(&place.path("a.img"));
    place.ok(&["scratch", "b.vhdx", "--size", "64M"]);
    place.ok(&["reclaim", "b.vhdx"]);
    place.ok(&["inspect", "b.vhdx"]);
}

#[test]
fn what_cannot_be_reclaimed_is_told_with_what_to_do() {
    let place = Place::new().with_layer();
    fs::create_dir(place.path("layer")).unwrap();
    fs::copy(place.path("layer.vhd"), place.path("layer/layer.vhd")).unwrap();
    place.ok(&["tar2vhd", "-i", "layer.tar", "-o", "v.img", "--verity"]);
    for (file, words) in [
        ("gone", &["gone", "no such file"][..]),
        ("layer", &["layer is a folder"]),
        (
            "layer.tar",
            &["layer.tar", "no file system is in it: it is a tar"],
        ),
        ("v.img", &["v.img", "dm-verity"]),
    ] {
        place.fails(&["reclaim", file], 1, words);
    }
    if cfg!(windows) {
        place.fails(&["reclaim", "layer.vhd"], 1, &["a fixed VHD has none"]);
    }
}
