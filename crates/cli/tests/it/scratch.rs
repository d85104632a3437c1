//! `scratch`: empty disks.

use std::fs;

use crate::fixture::{Place, e2fsck, judge};

#[test]
fn an_empty_disk_is_small_and_whole() {
    let place = Place::new();
    let line = place.ok(&["scratch", "a.vhdx"]);
    assert!(line.contains("20 GiB"), "{line}");
    let path = place.path("a.vhdx");
    assert!(fs::metadata(&path).unwrap().len() < 64 << 20);
    judge("qemu-img", &["check".as_ref(), path.as_os_str()]);
    let raw = place.path("a.img");
    place.ok(&[
        "scratch",
        "a.img",
        "--size",
        "64M",
        "--journal",
        "4M",
        "--label",
        "mine",
    ]);
    assert_eq!(fs::metadata(&raw).unwrap().len(), 64 << 20);
    e2fsck(&raw);
    let said = judge("dumpe2fs", &["-h".as_ref(), raw.as_os_str()]);
    assert!(
        said.contains("has_journal") && said.contains("mine"),
        "{said}"
    );
    let vhd = place.path("a.vhd");
    place.ok(&["scratch", "a.vhd", "--size", "32M"]);
    assert_eq!(fs::metadata(&vhd).unwrap().len(), (32 << 20) + 512);
    e2fsck(&vhd);
}

#[test]
fn the_second_one_comes_from_the_cache() {
    let place = Place::new();
    let make = |name: &str, size: &str| -> serde_json::Value {
        let text = place.ok(&[
            "scratch", name, "--size", size, "--cache", "cache", "--json",
        ]);
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(make("a.vhdx", "64M")["from_cache"], false);
    assert_eq!(make("b.vhdx", "64M")["from_cache"], true);
    assert_eq!(make("c.vhdx", "128M")["from_cache"], false);
    let read = |name: &str| fs::read(place.path(name)).unwrap();
    assert!(read("a.vhdx") == read("b.vhdx"));
}

#[test]
fn a_file_that_is_there_stays() {
    let place = Place::new();
    place.write("a.vhdx", b"mine");
    place.fails(&["scratch", "a.vhdx"], 1, &["a.vhdx", "already"]);
    place.fails(&["scratch", "a.vhdx", "--size", "64M"], 1, &["a.vhdx"]);
    assert_eq!(fs::read(place.path("a.vhdx")).unwrap(), b"mine");
    place.ok(&["scratch", "a.vhdx", "--size", "64M", "--force"]);
    assert!(fs::metadata(place.path("a.vhdx")).unwrap().len() > 4);
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let place = Place::new();
    fs::create_dir(place.path("folder")).unwrap();
    place.write("file", b"");
    for (arguments, words) in [
        (&["scratch", "gone/a.vhdx"][..], &["gone/a.vhdx"][..]),
        (&["scratch", "folder"], &["folder"]),
        (&["scratch", "a.vhdx", "--size", "4K"], &["a.vhdx"]),
        (&["scratch", "a.vhdx", "--size", "16000P"], &["a.vhdx"]),
        (
            &["scratch", "a.vhdx", "--size", "64M", "--journal", "128M"],
            &["a.vhdx"],
        ),
        (
            &["scratch", "a.vhdx", "--label", "much longer than sixteen"],
            &["label"],
        ),
        (
            &["scratch", "a.vhdx", "--cache", "file/cache"],
            &["file/cache"],
        ),
    ] {
        place.fails(arguments, 1, words);
    }
}
