//! `inspect`: what is said of good files, bad files and folders.

use std::fs;

use crate::fixture::{Place, gzip, judge, noise, said};

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

#[test]
fn what_is_no_disk_is_called_by_its_name() {
    let place = Place::new().with_layer();
    let tar = fs::read(place.path("layer.tar")).unwrap();
    place.write("packed", &gzip(&tar));
    place.write("text", b"only words\n");
    place.write("program", b"\x7fELF\x02\x01\x01\0");
    for (file, name) in [
        ("packed", "a gzip stream"),
        ("layer.tar", "a tar"),
        ("text", "text"),
        ("program", "a program or library (ELF)"),
    ] {
        let text = place.ok(&["inspect", file]);
        assert!(
            text.contains(&format!("no disk file: it is {name}")),
            "{text}"
        );
        assert!(!text.contains("disk size"), "{text}");
        let found: serde_json::Value =
            serde_json::from_str(&place.ok(&["inspect", file, "--json"])).unwrap();
        assert_eq!(found["content"], name);
        assert_eq!(found["disk"]["format"], "raw");
        assert!(found["problem"].as_str().unwrap().contains(name));
        let refused = place.opengcs(["reclaim", file]).output().unwrap();
        let said = said(&refused);
        assert!(said.contains(name) && said.contains("\nhint: "), "{said}");
    }
    let squash = ["squash", "text", "-o", "a.vhd"];
    place.fails(&squash, 1, &["no file system is in it: it is text"]);
}

#[test]
#[cfg_attr(windows, ignore = "mke2fs is needed")]
fn kin_of_ext4_are_called_by_their_names() {
    let place = Place::new();
    for kind in ["ext2", "ext3", "ext4"] {
        let image = place.write("disk.img", &vec![0; 8 << 20]);
        let words = ["-q", "-F", "-t", kind].map(std::ffi::OsStr::new);
        judge("mke2fs", &[&words[..], &[image.as_os_str()]].concat());
        let text = place.ok(&["inspect", "disk.img"]);
        let told = text
            .lines()
            .any(|line| line.starts_with("file system") && line.ends_with(kind));
        assert!(told, "{text}");
    }
}
