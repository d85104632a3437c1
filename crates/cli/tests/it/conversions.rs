//! `tar2vhd` and `vhd2tar`: there and back, and everything that can be wrong with their inputs.

use std::fs;

use crate::fixture::{Place, e2fsck, gzip, judge, said, tar, tar_names, tar_of};

#[test]
fn a_layer_goes_there_and_back() {
    let place = Place::new().with_layer();
    e2fsck(&place.path("layer.vhd"));
    let line = place.ok(&["vhd2tar", "layer.vhd", "-o", "back.tar"]);
    assert!(line.contains("back.tar"), "{line}");
    let back = fs::read(place.path("back.tar")).unwrap();
    let names = tar_names(&back);
    for name in [
        "folder/.wh.gone",
        "folder/hard",
        "folder/hello",
        "folder/large",
        "link",
    ] {
        assert!(names.iter().any(|have| have == name), "{names:?}");
    }
    let listed = place.opengcs(["vhd2tar", "layer.vhd"]).output().unwrap();
    assert_eq!(listed.stdout, back);
    assert_eq!(said(&listed), "");
    // The input can also be given as that of other commands.
    let again = place
        .opengcs(["vhd2tar", "-i", "layer.vhd"])
        .output()
        .unwrap();
    assert_eq!(again.stdout, back);
}

#[test]
fn compressed_tars_and_pipes_give_the_same_disk() {
    let place = Place::new().with_layer();
    let disk = fs::read(place.path("layer.vhd")).unwrap();
    place.write("layer.tar.gz", &gzip(&tar()));
    place.ok(&["tar2vhd", "-i", "layer.tar.gz", "-o", "b.vhd"]);
    assert!(fs::read(place.path("b.vhd")).unwrap() == disk);
    let piped = place
        .opengcs(["tar2vhd", "-o", "-"])
        .write_stdin(gzip(&tar()))
        .output()
        .unwrap();
    assert!(piped.status.success(), "{}", said(&piped));
    assert!(piped.stdout == disk);
    let tar = place
        .opengcs(["vhd2tar", "layer.vhd"])
        .output()
        .unwrap()
        .stdout;
    let back = place
        .opengcs(["vhd2tar", "-"])
        .write_stdin(disk)
        .output()
        .unwrap();
    assert!(back.status.success(), "{}", said(&back));
    assert!(back.stdout == tar);
}

#[test]
fn formats_follow_the_name_or_the_option() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    for (name, options, format) in [
        ("a.vhdx", &[][..], "vhdx"),
        ("a.img", &[], "raw"),
        ("a.vhd", &[], "vpc"),
        ("a.disk", &["--format", "vhdx"], "vhdx"),
    ] {
        let arguments = [&["tar2vhd", "-i", "layer.tar", "-o", name], options].concat();
        place.ok(&arguments);
        let path = place.path(name);
        let said = judge(
            "qemu-img",
            &[
                "info".as_ref(),
                "-f".as_ref(),
                format.as_ref(),
                path.as_os_str(),
            ],
        );
        assert!(said.contains(&format!("file format: {format}")), "{said}");
    }
    e2fsck(&place.path("a.img"));
    let path = place.path("a.vhdx");
    judge("qemu-img", &["check".as_ref(), path.as_os_str()]);
}

#[test]
fn options_reach_the_file_system() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    let line = place.ok(&[
        "tar2vhd",
        "-i",
        "layer.tar",
        "-o",
        "a.img",
        "--size",
        "64M",
        "--journal",
        "4M",
        "--label",
        "mine",
        "--uuid",
        "11111111-2222-3333-4444-555555555555",
        "--no-lost-found",
    ]);
    assert!(line.contains("64 MiB"), "{line}");
    let path = place.path("a.img");
    e2fsck(&path);
    let said = judge("dumpe2fs", &["-h".as_ref(), path.as_os_str()]);
    for word in [
        "11111111-2222-3333-4444-555555555555",
        "mine",
        "has_journal",
    ] {
        assert!(said.contains(word), "{said}");
    }
    let tar = place.opengcs(["vhd2tar", "a.img"]).output().unwrap().stdout;
    assert!(
        !tar_names(&tar)
            .iter()
            .any(|name| name.contains("lost+found"))
    );
}

#[test]
fn block_sizes_and_backslashes_are_chosen() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    for (size, bytes) in [("1K", 1024), ("2048", 2048), ("4K", 4096)] {
        place.ok(&[
            "tar2vhd",
            "-i",
            "layer.tar",
            "-o",
            "a.vhd",
            "--block-size",
            size,
        ]);
        let found: serde_json::Value =
            serde_json::from_str(&place.ok(&["inspect", "a.vhd", "--json"])).unwrap();
        assert_eq!(found["filesystem"]["block_size"], bytes);
    }
    let wrong = [
        "tar2vhd",
        "-i",
        "layer.tar",
        "-o",
        "b.vhd",
        "--block-size",
        "8K",
    ];
    let output = place.opengcs(wrong).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("1K, 2K or 4K"));
    assert!(!place.path("b.vhd").exists());
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    // By hand, because the crate makes slashes of them on Windows.
    let name = b"Files\\etc\\hosts";
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_cksum();
    tar.append(&header, &[][..]).unwrap();
    place.write("windows.tar", &tar.into_inner().unwrap());
    for (option, name) in [
        (None, "Files\\etc\\hosts"),
        (Some("--backslash"), "Files/etc/hosts"),
    ] {
        let arguments = ["tar2vhd", "-i", "windows.tar", "-o", "w.img"];
        place.ok(&[&arguments[..], option.as_slice()].concat());
        let back = place.opengcs(["vhd2tar", "w.img"]).output().unwrap().stdout;
        assert!(
            tar_names(&back).contains(&name.to_owned()),
            "{:?}",
            tar_names(&back)
        );
    }
}

#[test]
fn json_tells_the_result() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    let text = place.ok(&["tar2vhd", "-i", "layer.tar", "-o", "layer.vhd", "--json"]);
    let done: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(done["output"], "layer.vhd");
    assert_eq!(done["format"], "vhd");
    assert_eq!(done["entries"], 6);
    assert_eq!(done["warnings_total"], 0);
    let length = fs::metadata(place.path("layer.vhd")).unwrap().len();
    assert_eq!(done["size"], length);
    let text = place.ok(&["vhd2tar", "layer.vhd", "-o", "b.tgz", "--gzip", "--json"]);
    let done: serde_json::Value = serde_json::from_str(&text).unwrap();
    let length = fs::metadata(place.path("b.tgz")).unwrap().len();
    assert_eq!(done["size"], length);
}

#[test]
fn nothing_is_said_when_quiet() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    let output = place
        .opengcs(["--quiet", "tar2vhd", "-i", "layer.tar", "-o", "layer.vhd"])
        .output()
        .unwrap();
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
}

#[test]
fn missing_and_wrong_inputs_are_named() {
    let place = Place::new().with_layer();
    fs::create_dir(place.path("folder")).unwrap();
    fs::create_dir(place.path("full")).unwrap();
    fs::copy(place.path("layer.vhd"), place.path("full/layer.vhd")).unwrap();
    place.write("empty", b"");
    for (arguments, words) in [
        (
            &["tar2vhd", "-i", "gone.tar", "-o", "b.vhd"][..],
            &["gone.tar", "no such file"][..],
        ),
        (
            &["tar2vhd", "-i", "folder", "-o", "b.vhd"],
            &["folder is a folder"],
        ),
        (&["tar2vhd", "-i", "layer.vhd", "-o", "b.vhd"], &["tar"]),
        (
            &["tar2vhd", "-i", "layer.tar", "-o", "gone/b.vhd"],
            &["gone/b.vhd", "no such file"],
        ),
        (&["tar2vhd", "-i", "layer.tar", "-o", "folder"], &["folder"]),
        (
            &["vhd2tar", "gone.vhd", "-o", "b.tar"],
            &["gone.vhd", "no such file"],
        ),
        (
            &["vhd2tar", "folder", "-o", "b.tar"],
            &["folder is a folder"],
        ),
        (&["vhd2tar", "full", "-o", "b.tar"], &["full is a folder"]),
        (&["vhd2tar", "empty", "-o", "b.tar"], &["empty"]),
        (&["vhd2tar", "layer.tar", "-o", "b.tar"], &["layer.tar"]),
        (
            &["vhd2tar", "layer.vhd", "-o", "gone/b.tar"],
            &["gone/b.tar", "no such file"],
        ),
        (&["vhd2tar", "layer.vhd", "-o", "folder"], &["folder"]),
        (
            &["vhd2tar", "layer.vhd", "--sandbox", "-o", "b.tar"],
            &["layer.vhd", "upper"],
        ),
    ] {
        place.fails(arguments, 1, words);
    }
    place.fails(
        &["vhd2tar", "layer.vhd", "-o", "layer.vhd"],
        2,
        &["over itself"],
    );
    assert!(place.path("layer.vhd").is_file());
}

#[test]
fn cut_and_corrupt_tars_leave_nothing() {
    let place = Place::new();
    let tar = tar();
    let packed = gzip(&tar);
    place.write("cut.tar", &tar[..tar.len() / 2]);
    place.write("cut-in-header.tar", &tar[..700]);
    place.write("cut.tar.gz", &packed[..packed.len() / 2]);
    place.write("no-end.tar.gz", &packed[..packed.len() - 8]);
    let mut flipped = packed.clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 64].fill(0xa5);
    place.write("flipped.tar.gz", &flipped);
    let mut header = tar.clone();
    header[512 + 130] ^= 0x55;
    place.write("header.tar", &header);
    place.write("noise", &crate::fixture::noise(5000));
    for name in [
        "cut.tar",
        "cut-in-header.tar",
        "cut.tar.gz",
        "no-end.tar.gz",
        "flipped.tar.gz",
        "header.tar",
        "noise",
    ] {
        for target in ["b.vhd", "b.vhdx", "b.img"] {
            place.fails(&["tar2vhd", "-i", name, "-o", target], 1, &[]);
        }
    }
    // What was there stays as it was.
    place.write("old.vhd", b"old");
    place.fails(&["tar2vhd", "-i", "cut.tar", "-o", "old.vhd"], 1, &[]);
    assert_eq!(fs::read(place.path("old.vhd")).unwrap(), b"old");
}

#[test]
fn corrupt_disk_files_leave_nothing() {
    let place = Place::new().with_layer();
    place.ok(&["tar2vhd", "-i", "layer.tar", "-o", "layer.vhdx"]);
    place.ok(&["tar2vhd", "-i", "layer.tar", "-o", "layer.img"]);
    let damage = |from: &str, to: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(place.path(from)).unwrap();
        change(&mut bytes);
        place.write(to, &bytes);
    };
    damage("layer.vhd", "cut.vhd", &|bytes| {
        bytes.truncate(bytes.len() / 2);
    });
    damage("layer.vhd", "magic.vhd", &|bytes| bytes[1024 + 56] ^= 0xff);
    damage("layer.vhdx", "cut.vhdx", &|bytes| {
        bytes.truncate(bytes.len() / 2);
    });
    damage("layer.vhdx", "headers.vhdx", &|bytes| {
        bytes[0x10000..0x30000].fill(0x11);
    });
    damage("layer.vhdx", "regions.vhdx", &|bytes| {
        bytes[0x30000..0x50000].fill(0);
    });
    damage("layer.img", "super.img", &|bytes| bytes[1024 + 24] ^= 0xff);
    damage("layer.img", "groups.img", &|bytes| {
        bytes[4096..4096 + 64].fill(0xff);
    });
    for name in [
        "cut.vhd",
        "magic.vhd",
        "cut.vhdx",
        "headers.vhdx",
        "regions.vhdx",
        "super.img",
        "groups.img",
    ] {
        place.fails(&["vhd2tar", name, "-o", "b.tar"], 1, &[name]);
        place.fails(&["vhd2tar", name], 1, &[name]);
        let mut piped = place.opengcs(["vhd2tar", "-", "-o", "b.tar"]);
        piped.pipe_stdin(place.path(name)).unwrap();
        place.fails_as(&mut piped, 1, &["opengcs: stdin: "]);
    }
}

#[test]
#[cfg_attr(windows, ignore = "a shell and devices of Linux")]
fn a_terminal_gets_no_data_and_a_closed_pipe_no_complaint() {
    let place = Place::new().with_layer();
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg("\"$0\" vhd2tar layer.vhd | head -c 1 > /dev/null")
        .arg(assert_cmd::cargo::cargo_bin("opengcs"))
        .current_dir(place.work())
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(said(&output), "");
}

#[cfg(unix)] // A shell, and a device of Linux.
#[test]
fn a_full_device_is_told() {
    let place = Place::new().with_layer();
    place.fails(
        &["vhd2tar", "layer.vhd", "-o", "/dev/full"],
        1,
        &["no space"],
    );
    let mut command = assert_cmd::Command::new("sh");
    command
        .args(["-c", "exec \"$0\" vhd2tar layer.vhd > /dev/full"])
        .arg(assert_cmd::cargo::cargo_bin("opengcs"));
    place.surround(&mut command);
    place.fails_as(&mut command, 1, &["no space"]);
}

#[test]
fn a_verity_tree_is_printed_and_inspected() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    let verify = |root: &str, offset: u64| {
        let path = place.path("a.img");
        let offset = format!("--hash-offset={offset}");
        let [verb, root, offset] = ["verify", root, &offset].map(std::ffi::OsStr::new);
        let disk = path.as_os_str();
        judge("veritysetup", &[verb, disk, disk, root, offset]);
    };
    let arguments = ["tar2vhd", "-i", "layer.tar", "-o", "a.img", "--verity"];
    let said = place.ok(&[&arguments[..], &["--json"]].concat());
    let done: serde_json::Value = serde_json::from_str(&said).unwrap();
    let root = done["verity"]["root_hash"].as_str().unwrap();
    verify(root, done["verity"]["hash_offset"].as_u64().unwrap());
    assert!(place.ok(&arguments).contains(root));
    assert_eq!(
        place.ok(&[&["--quiet"], &arguments[..]].concat()).trim(),
        root
    );
    assert!(place.ok(&["inspect", "a.img"]).contains(root));
    let inspected = place.ok(&["inspect", "a.img", "--json"]);
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["verity"], done["verity"]);
}

#[test]
fn what_is_no_tar_is_told_with_what_to_do() {
    let place = Place::new().with_layer();
    place.ok(&["tar2vhd", "-i", "layer.tar", "-o", "layer.vhdx"]);
    place.ok(&["tar2vhd", "-i", "layer.tar", "-o", "layer.img"]);
    for disk in ["layer.vhd", "layer.vhdx", "layer.img"] {
        let words = [disk, "is a disk file, not a tar"];
        place.fails(&["tar2vhd", "-i", disk, "-o", "b.vhd"], 1, &words);
    }
    place.fails(&["tar2vhd", "-i", "layer.tar"], 2, &["-o FILE"]);
    place.fails(
        &[
            "tar2vhd",
            "-i",
            "layer.tar",
            "-o",
            "b.vhd",
            "--journal",
            "1",
        ],
        1,
        &["1 bytes", "4 MiB"],
    );
}

#[test]
#[cfg_attr(windows, ignore = "a shell and devices of Linux")]
fn zeros_without_end_are_no_tar_and_do_no_harm_behind_one() {
    let place = Place::new().with_layer();
    place.fails(
        &["tar2vhd", "-i", "/dev/zero", "-o", "b.vhd"],
        1,
        &["nothing but zeros"],
    );
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg("cat layer.tar /dev/zero | \"$0\" tar2vhd -o endless.vhd")
        .arg(assert_cmd::cargo::cargo_bin("opengcs"))
        .current_dir(place.work())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("zeros"), "{}", said(&output));
    let [one, other] = ["endless.vhd", "layer.vhd"].map(|name| fs::read(place.path(name)).unwrap());
    assert!(one == other);
}

#[test]
fn a_tar_is_named_with_an_option_or_without() {
    let place = Place::new().with_layer();
    place.ok(&["tar2vhd", "layer.tar", "-o", "bare.vhd"]);
    let read = |name| fs::read(place.path(name)).unwrap();
    assert_eq!(read("bare.vhd"), read("layer.vhd"));
    place.write("one.tar", &tar_of(&["a"]));
    let line = place.ok(&["tar2vhd", "one.tar", "-o", "one.vhd"]);
    assert!(line.ends_with(" with 1 entry\n"), "{line}");
    let both = ["tar2vhd", "layer.tar", "-i", "layer.tar", "-o", "c.vhd"];
    place.fails(&both, 2, &["cannot be used with"]);
}
