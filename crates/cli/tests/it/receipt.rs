//! `tar2vhd --receipt` and `verify`: what a receipt holds, and what differs from it.

use std::fs;

use crate::fixture::{Place, gzip, judge, said, tar};

/// What `sha256sum` says of a file, as receipts have it.
fn sha256(place: &Place, name: &str) -> String {
    let path = place.path(name);
    let said = judge("sha256sum", &["-b".as_ref(), path.as_os_str()]);
    format!("sha256:{}", said.split_once(' ').unwrap().0)
}

fn receipt(place: &Place, name: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(place.path(name)).unwrap()).unwrap()
}

#[test]
fn receipt_has_the_digests_that_others_find() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    place.write("layer.tar.gz", &gzip(&tar()));
    for (input, output, options) in [
        ("layer.tar", "a.vhd", &[][..]),
        ("layer.tar.gz", "b.vhdx", &["--label", "mine"]),
        ("layer.tar.gz", "c.img", &["--verity", "--size", "16M"]),
    ] {
        let arguments = [
            "tar2vhd",
            "-i",
            input,
            "-o",
            output,
            "--receipt",
            "r.json",
            "--json",
        ];
        let done = place.ok(&[&arguments[..], options].concat());
        let done: serde_json::Value = serde_json::from_str(&done).unwrap();
        assert_eq!(done["receipt"], "r.json");
        let receipt = receipt(&place, "r.json");
        assert_eq!(receipt["receipt"], 1);
        assert_eq!(receipt["opengcs"], env!("CARGO_PKG_VERSION"));
        assert_eq!(receipt["tar"]["digest"], sha256(&place, input));
        assert_eq!(receipt["tar"]["diff_id"], sha256(&place, "layer.tar"));
        assert_eq!(receipt["image"]["digest"], sha256(&place, output));
        for (own, length) in [("tar", input), ("image", output)] {
            let length = fs::metadata(place.path(length)).unwrap().len();
            assert_eq!(receipt[own]["size"], length);
        }
        assert_eq!(receipt["tar"]["uncompressed_size"], tar().len());
        assert_eq!(receipt["image"]["format"], done["format"]);
        assert_eq!(receipt["verity"], done["verity"]);
        let line = place.ok(&["verify", output, "--receipt", "r.json", "--tar", input]);
        assert_eq!(line, format!("{output} is as its receipt says\n"));
        assert_eq!(
            place.ok(&["-q", "verify", output, "--receipt", "r.json"]),
            ""
        );
    }
    assert_eq!(receipt(&place, "r.json")["options"]["size"], 16 << 20);
    // The same without digests being asked for gives the same bytes.
    place.ok(&["tar2vhd", "-i", "layer.tar", "-o", "d.vhd"]);
    assert!(fs::read(place.path("a.vhd")).unwrap() == fs::read(place.path("d.vhd")).unwrap());
}

#[test]
fn what_differs_is_told_in_one_line() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    place.ok(&[
        "tar2vhd",
        "-i",
        "layer.tar",
        "-o",
        "layer.img",
        "--verity",
        "--receipt",
        "r.json",
    ]);
    let whole = fs::read(place.path("layer.img")).unwrap();
    let receipt = receipt(&place, "r.json");
    let data = usize::try_from(receipt["verity"]["hash_offset"].as_u64().unwrap()).unwrap();
    let differs = |change: &dyn Fn(&mut Vec<u8>), fields: &[&str], words: &[&str]| {
        let mut changed = whole.clone();
        change(&mut changed);
        place.write("changed.img", &changed);
        let arguments = ["verify", "changed.img", "--receipt", "r.json"];
        let output = place.opengcs(arguments).output().unwrap();
        let line = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(
            (output.status.code(), said(&output)),
            (Some(1), String::new()),
            "{line}"
        );
        assert!(
            line.starts_with("changed.img differs from its receipt: "),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1, "{line}");
        for word in words {
            assert!(line.contains(word), "no {word:?} in {line}");
        }
        let json = place
            .opengcs([&arguments[..], &["--json"]].concat())
            .output()
            .unwrap();
        assert_eq!(json.status.code(), Some(1));
        let found: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        let found = found["differences"].as_array().unwrap();
        let found: Vec<&str> = found
            .iter()
            .map(|one| one["field"].as_str().unwrap())
            .collect();
        assert_eq!(found, fields);
    };
    let both = &["image.digest", "verity"];
    differs(
        &|image| image.truncate(5000),
        &["image.size"],
        &["5000 bytes"],
    );
    differs(
        &|image| image[3 * 4096 + 7] ^= 1,
        both,
        &["block 3 (bytes from 12288)", "sha256:"],
    );
    differs(
        &|image| image[data - 1] ^= 1,
        both,
        &[&format!("block {} ", data / 4096 - 1)],
    );
    differs(&|image| image[data] ^= 1, both, &["superblock"]);
    // The leaf that has the hash of block 5 follows the tree's upper levels.
    let leaves = whole.len() - (data / 4096).div_ceil(128) * 4096;
    differs(&|image| image[leaves + 5 * 32] ^= 1, both, &["block 5 "]);
}

#[test]
fn another_tar_is_told_from_one_that_is_only_packed_otherwise() {
    let place = Place::new().with_layer();
    place.write("again.tar.gz", &gzip(&tar()));
    let mut other = tar();
    other[600] ^= 1;
    place.write("other.tar", &other);
    place.write("torn.tar.gz", &gzip(&tar())[..500]);
    place.ok(&[
        "tar2vhd",
        "-i",
        "layer.tar",
        "-o",
        "layer.vhd",
        "--receipt",
        "r.json",
    ]);
    for (name, fields) in [
        ("again.tar.gz", &["tar.size", "tar.digest"][..]),
        ("other.tar", &["tar.digest", "tar.diff_id"]),
        ("torn.tar.gz", &["tar.size", "tar.digest", "tar.diff_id"]),
    ] {
        let arguments = [
            "verify",
            "layer.vhd",
            "--receipt",
            "r.json",
            "--tar",
            name,
            "--json",
        ];
        let output = place.opengcs(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = found["differences"].as_array().unwrap();
        let found: Vec<&str> = found
            .iter()
            .map(|one| one["field"].as_str().unwrap())
            .collect();
        assert_eq!(found, fields, "{name}");
    }
    let piped = place
        .opengcs(["verify", "layer.vhd", "--receipt", "r.json", "--tar", "-"])
        .write_stdin(tar())
        .output()
        .unwrap();
    assert!(piped.status.success(), "{}", said(&piped));
}

#[test]
fn no_receipt_without_an_image_and_no_image_without_a_place_for_it() {
    let place = Place::new().with_layer();
    place.write("bad.tar", &tar()[..3000]);
    let with = |input: &str, output: &str, receipt: &str, code: i32, words: &[&str]| {
        let arguments = ["tar2vhd", "-i", input, "-o", output, "--receipt", receipt];
        place.fails(&arguments, code, words);
    };
    with("bad.tar", "x.vhd", "r.json", 1, &["ends"]);
    with("layer.tar", "x.vhd", "nowhere/r.json", 1, &["nowhere"]);
    with("layer.tar", "x.vhd", "x.vhd", 2, &["x.vhd"]);
    with("layer.tar", "x.vhd", "layer.tar", 2, &["layer.tar"]);
    place.fails(
        &["verify", "layer.vhd", "--receipt", "none.json"],
        1,
        &["none.json"],
    );
    place.write("text.json", b"no receipt");
    place.fails(
        &["verify", "layer.vhd", "--receipt", "text.json"],
        1,
        &["text.json", "it is no receipt"],
    );
    place.write("later.json", br#"{"receipt": 2}"#);
    place.fails(
        &["verify", "layer.vhd", "--receipt", "later.json"],
        1,
        &["form 2"],
    );
    place.ok(&[
        "tar2vhd",
        "-i",
        "layer.tar",
        "-o",
        "y.vhd",
        "--receipt",
        "r.json",
    ]);
    place.fails(
        &["verify", "gone.vhd", "--receipt", "r.json"],
        1,
        &["gone.vhd"],
    );
    place.fails(&["verify", ".", "--receipt", "r.json"], 1, &["folder"]);
    let stdout = place
        .opengcs([
            "tar2vhd",
            "-i",
            "layer.tar",
            "-o",
            "-",
            "--receipt",
            "s.json",
        ])
        .output()
        .unwrap();
    assert!(stdout.status.success(), "{}", said(&stdout));
    assert_eq!(receipt(&place, "s.json"), receipt(&place, "r.json"));
}

#[test]
fn receipt_and_disk_are_never_one_file() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    fs::create_dir(place.path("sub")).unwrap();
    let whole = place.path("a.vhd");
    let ways = ["a.vhd", "./a.vhd", "sub/../a.vhd", whole.to_str().unwrap()];
    for made in [false, true] {
        if made {
            place.ok(&["tar2vhd", "-i", "layer.tar", "-o", "a.vhd"]);
        }
        for way in ways {
            let arguments = [
                "tar2vhd",
                "-i",
                "layer.tar",
                "-o",
                "a.vhd",
                "--receipt",
                way,
            ];
            place.fails(&arguments, 2, &["cannot both be"]);
            assert_eq!(place.path("a.vhd").exists(), made);
        }
    }
    let arguments = [
        "tar2vhd",
        "-i",
        "layer.tar",
        "-o",
        "a.vhd",
        "--receipt",
        "-",
    ];
    place.fails(&arguments, 2, &["not to stdout"]);
}
