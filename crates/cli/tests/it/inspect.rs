//! `inspect`: what is said of good files, bad files and folders.

use std::fs;

use crate::fixture::{Place, noise};

#[test]
fn a_layer_is_described() {
    let place = Place::new().with_layer();
    let text = place.ok(&["inspect", "layer.vhd"]);
    for word in ["layer.vhd", "vhd", "ext4", "inodes", "uuid", "free"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    let found: serde_json::Value =
        serde_json::from_str(&place.ok(&["inspect", "layer.vhd", "--json"])).unwrap();
    assert_eq!(found["disk"]["format"], "vhd");
    assert_eq!(found["folder"], serde_json::Value::Null);
    assert_eq!(found["problem"], serde_json::Value::Null);
    let length = fs::metadata(place.path("layer.vhd")).unwrap().len();
    assert_eq!(found["disk"]["file_size"], length);
    assert_eq!(found["disk"]["virtual_size"], length - 512);
}

#[test]
fn folders_stand_for_their_disk() {
    let place = Place::new().with_layer();
    for (folder, file, is_sandbox) in [("layer", "layer.vhd", false), ("box", "sandbox.vhdx", true)]
    {
        fs::create_dir(place.path(folder)).unwrap();
        place.ok(&["scratch", &format!("{folder}/{file}"), "--size", "32M"]);
        let found: serde_json::Value =
            serde_json::from_str(&place.ok(&["inspect", folder, "--json"])).unwrap();
        assert_eq!(found["folder"]["is_sandbox"], is_sandbox);
        let text = place.ok(&["inspect", folder]);
        assert!(
            text.contains(if is_sandbox { "a sandbox" } else { "a layer" }),
            "{text}"
        );
    }
}

#[test]
fn a_disk_without_a_file_system_is_still_described() {
    let place = Place::new();
    place.write("noise.img", &noise(1 << 20));
    let text = place.ok(&["inspect", "noise.img"]);
    assert!(text.contains("cannot be read"), "{text}");
    let found: serde_json::Value =
        serde_json::from_str(&place.ok(&["inspect", "noise.img", "--json"])).unwrap();
    assert!(found["problem"].is_string());
}

#[test]
fn missing_and_broken_ones_are_named() {
    let place = Place::new();
    fs::create_dir(place.path("folder")).unwrap();
    place.write("empty.vhd", b"");
    place.ok(&["scratch", "a.vhdx", "--size", "64M"]);
    let mut bytes = fs::read(place.path("a.vhdx")).unwrap();
    bytes[0x1_0000..0x3_0000].fill(0x5a);
    place.write("headers.vhdx", &bytes);
    for (name, words) in [
        ("gone", &["gone", "no such file"][..]),
        ("folder", &["folder", "layer.vhd", "sandbox.vhdx"]),
        ("empty.vhd", &["empty.vhd", "empty"]),
        ("headers.vhdx", &["headers.vhdx"]),
    ] {
        place.fails(&["inspect", name], 1, words);
    }
}

#[test]
#[cfg_attr(windows, ignore = "devices of Linux")]
fn what_can_be_no_disk_is_told_as_what_it_is() {
    let place = Place::new();
    place.fails(
        &["inspect", "/dev/zero"],
        1,
        &["/dev/zero", "a character device, not a disk"],
    );
    let pipe = place.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    place.fails(&["inspect", "pipe"], 1, &["pipe", "a pipe, not a disk"]);
}
