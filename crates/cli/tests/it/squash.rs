//! `squash`: layers of all kinds become one image.

use std::fs;

use crate::fixture::{Place, e2fsck, gzip, judge, said, tar_names};

/// A tar of empty files and, with a slash at their ends, folders.
fn tar(names: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_ustar();
        let is_folder = name.ends_with('/');
        header.set_entry_type(if is_folder {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(0o755);
        let content = if is_folder { "" } else { name };
        header.set_size(content.len() as u64);
        builder
            .append_data(&mut header, name, content.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn chain() -> Place {
    let place = Place::new();
    place.write(
        "base.tar.gz",
        &gzip(&tar(&["d/", "d/old", "d/kept", "gone"])),
    );
    place.write("app.tar", &tar(&["d/", "d/.wh.old", ".wh.gone", "new"]));
    place.write("fix.tar", &tar(&["gone", "d/", "d/.wh.kept"]));
    for (input, output) in [("base.tar.gz", "base.vhd"), ("app.tar", "app.vhdx")] {
        place.ok(&["-q", "tar2vhd", "-i", input, "-o", output]);
    }
    place
}

fn names(place: &Place, disk: &str) -> Vec<String> {
    let output = place.opengcs(["vhd2tar", disk]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    tar_names(&output.stdout)
}

#[test]
fn a_chain_becomes_one_clean_image() {
    let place = chain();
    let line = place.ok(&["squash", "base.vhd", "app.vhdx", "fix.tar", "-o", "all.img"]);
    assert!(
        line.starts_with("all.img: ") && line.contains("from 3 layers, with 3 entries"),
        "{line}"
    );
    e2fsck(&place.path("all.img"));
    assert_eq!(names(&place, "all.img"), ["./", "d/", "gone", "new"]);
    // The order matters: the lowest is the first.
    place.ok(&["squash", "app.vhdx", "base.vhd", "-o", "other.img"]);
    assert_eq!(
        names(&place, "other.img"),
        ["./", "d/", "d/kept", "d/old", "gone", "new"]
    );
    let piped = place
        .opengcs([
            "squash", "base.vhd", "app.vhdx", "fix.tar", "--format", "raw", "-o", "-",
        ])
        .output()
        .unwrap();
    assert!(piped.status.success(), "{}", said(&piped));
    assert!(piped.stdout == fs::read(place.path("all.img")).unwrap());
}

#[test]
fn upper_layers_are_squashed_by_themselves_when_they_keep_their_whiteouts() {
    let place = chain();
    place.ok(&[
        "squash",
        "app.vhdx",
        "fix.tar",
        "--keep-whiteouts",
        "-o",
        "upper.vhd",
    ]);
    assert_eq!(
        names(&place, "upper.vhd"),
        ["./", "d/", "d/.wh.kept", "d/.wh.old", "gone", "new"]
    );
    place.ok(&["squash", "base.vhd", "upper.vhd", "-o", "two.vhd"]);
    place.ok(&[
        "squash",
        "base.vhd",
        "app.vhdx",
        "fix.tar",
        "-o",
        "three.vhd",
    ]);
    assert!(fs::read(place.path("two.vhd")).unwrap() == fs::read(place.path("three.vhd")).unwrap());
}

#[test]
fn the_image_is_chosen_as_for_a_tar_and_json_tells_what_was_made() {
    let place = chain();
    let text = place.ok(&[
        "squash", "base.vhd", "app.vhdx", "-o", "all.vhdx", "--verity", "--label", "mine", "--json",
    ]);
    let done: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(done["event"], "done");
    assert_eq!(
        (&done["layers"], &done["format"]),
        (&2.into(), &"vhdx".into())
    );
    assert_eq!(done["entries"], 3);
    // `d/kept` and `new` hold their names.
    assert_eq!(done["bytes"], 9);
    let length = fs::metadata(place.path("all.vhdx")).unwrap().len();
    assert_eq!(done["size"], length);
    let found: serde_json::Value =
        serde_json::from_str(&place.ok(&["inspect", "all.vhdx", "--json"])).unwrap();
    assert_eq!(found["verity"], done["verity"]);
    assert_eq!(found["filesystem"]["label"], "mine");
    let root = place.ok(&[
        "-q", "squash", "base.vhd", "app.vhdx", "-o", "q.img", "--verity",
    ]);
    assert_eq!(root.trim().len(), 64, "{root}");
    judge(
        "qemu-img",
        &["check".as_ref(), place.path("all.vhdx").as_os_str()],
    );
}

#[test]
fn what_cannot_be_squashed_is_told_and_leaves_nothing() {
    let place = chain();
    let fails = |arguments: &[&str], code: i32, words: &[&str]| {
        place.fails(&[&["squash"], arguments].concat(), code, words);
    };
    fails(&["base.vhd"], 2, &["-o FILE"]);
    fails(
        &["base.vhd", "-o", "base.vhd"],
        2,
        &["base.vhd", "over itself"],
    );
    fails(&["base.vhd", "none.vhd", "-o", "x.vhd"], 1, &["none.vhd"]);
    fails(
        &["base.vhd", "--sandbox", "-o", "x.vhd"],
        1,
        &["base.vhd", "not a sandbox"],
    );
    place.write(
        "text",
        b"neither a disk nor a tar, but long enough to be looked into",
    );
    fails(&["base.vhd", "text", "-o", "x.vhd"], 1, &["text"]);
    place.write("torn.tar.gz", &gzip(&tar(&["a"]))[..60]);
    fails(
        &["base.vhd", "torn.tar.gz", "-o", "x.vhd"],
        1,
        &["torn.tar.gz"],
    );
    fails(&["base.vhd", "-o", "nowhere/x.vhd"], 1, &["nowhere"]);
    fails(
        &["base.vhd", "app.vhdx", "-o", "x.vhd", "--size", "20K"],
        1,
        &["x.vhd"],
    );
    let output = place.opengcs(["squash", "-o", "x.vhd"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
