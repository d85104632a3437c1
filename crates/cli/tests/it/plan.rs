//! `tar2vhd --plan`: what it says, and that it writes nothing.

use std::fs;

use crate::fixture::{Place, gzip, said, tar, tar_of};

#[test]
fn a_plan_says_what_the_conversion_then_makes() {
    let place = Place::new();
    place.write("layer.tar", &tar());
    place.write("layer.tar.gz", &gzip(&tar()));
    for (name, options) in [
        ("a.vhd", &[][..]),
        ("b.vhdx", &["--verity"]),
        ("c.img", &["--size", "64M", "--journal", "4M"]),
    ] {
        let before = place.names();
        let plan = [
            &[
                "tar2vhd",
                "-i",
                "layer.tar.gz",
                "-o",
                name,
                "--plan",
                "--json",
            ],
            options,
        ];
        let plan: serde_json::Value = serde_json::from_str(&place.ok(&plan.concat())).unwrap();
        assert_eq!(place.names(), before);
        let made = [
            &["tar2vhd", "-i", "layer.tar", "-o", name, "--json"],
            options,
        ];
        let made: serde_json::Value = serde_json::from_str(&place.ok(&made.concat())).unwrap();
        let length = fs::metadata(place.path(name)).unwrap().len();
        assert_eq!(plan["image"]["size"], length, "{name}");
        for field in ["virtual_size", "inodes"] {
            assert_eq!(plan["image"][field], made[field], "{name}: {field}");
        }
        for field in ["format", "entries", "tar_bytes"] {
            assert_eq!(plan[field], made[field], "{name}: {field}");
        }
        assert_eq!(plan["compression"], "gzip");
        assert_eq!(plan["largest_file"]["path"], "folder/large");
        assert_eq!(plan["largest_file"]["size"], 700_000);
        assert_eq!(plan["refusal"], serde_json::Value::Null);
        assert_eq!(plan["problems"], serde_json::json!([]));
    }
}

#[test]
fn problems_are_shown_with_what_is_done_about_them() {
    let place = Place::new();
    let tar = tar_of(&["a/b", "twice", "twice", "/root", "a/", "z/.wh..wh..opq"]);
    let output = place
        .opengcs(["tar2vhd", "--plan"])
        .write_stdin(tar)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "problems      4 noted",
        "missing-parent: it is made: mode 0755, root's, with the time of what lies in it",
        "  \"z\": it has no entry of its own before what lies in it",
        "late-parent: it is made early, and gets its metadata when its entry comes",
        "replaced: the later entry takes its place",
        "  \"twice\": the tar has a file of this name before",
        "  \"/root\": its path is absolute",
    ] {
        assert!(
            text.lines().any(|have| have == line),
            "no {line:?} in: {text}"
        );
    }
    assert!(text.starts_with("image"), "{text}");
    assert_eq!(place.names().len(), 2);
}

#[test]
fn a_plan_of_what_is_refused_says_so_and_exits_with_1() {
    let place = Place::new();
    place.write(
        "bad.tar",
        &tar_of(&["../up", "good", "good/below", "x/../../../y"]),
    );
    let arguments = ["tar2vhd", "-i", "bad.tar", "--plan"];
    let output = place.opengcs(arguments).output().unwrap();
    assert_eq!(
        (output.status.code(), said(&output)),
        (Some(1), String::new())
    );
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        "none: the tar would be refused",
        "refusal       entry \"../up\" at byte 0: the path climbs above the root",
        "escaping-path: the tar is refused",
        "\"x/../../../y\"",
        "below-no-directory",
    ] {
        assert!(text.contains(words), "{text}");
    }
    place.fails(
        &["tar2vhd", "-i", "bad.tar", "-o", "x.vhd"],
        1,
        &["\"../up\"", "above the root"],
    );
    place.fails(&["tar2vhd", "-i", "nothing", "--plan"], 1, &["nothing"]);
    let json = [&arguments[..], &["--json"]].concat();
    let output = place.opengcs(json).output().unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["image"], serde_json::Value::Null);
    assert_eq!(plan["problem_counts"]["escaping-path"], 2);
    assert!(plan["refusal"].as_str().unwrap().contains("above the root"));
}
