//! What to do about what goes wrong most often is told in a line of its own.

use std::fs;

use crate::fixture::{Place, said, tar, tar_of};

#[test]
fn each_common_failure_says_what_to_do() {
    let place = Place::new().with_layer();
    let bytes = tar();
    place.write("cut.tar", &bytes[..bytes.len() / 2]);
    fs::create_dir(place.path("folder")).unwrap();
    place.write("climbing.tar", &tar_of(&["../a"]));
    for (words, hint) in [
        (
            &["tar2vhd", "-i", "cut.tar", "-o", "b.vhd"][..],
            "came whole",
        ),
        (
            &["tar2vhd", "-i", "climbing.tar", "-o", "b.vhd"],
            "--plan instead of -o",
        ),
        (
            &["tar2vhd", "-i", "layer.vhd", "-o", "b.vhd"],
            "opengcs vhd2tar layer.vhd",
        ),
        (
            &[
                "tar2vhd",
                "-i",
                "layer.tar",
                "-o",
                "b.vhd",
                "--size",
                "256K",
            ],
            "more with --size",
        ),
        (&["tar2vhd", "-i", "folder", "-o", "b.vhd"], "tar -C folder"),
        (&["tar2vhd", "-i", "layer.tar"], "-o layer.vhd"),
        (
            &["tar2vhd", "-i", "layer.tar", "-o", "gone/deep/b.vhd"],
            if cfg!(windows) {
                r"mkdir gone\deep"
            } else {
                "mkdir -p gone/deep"
            },
        ),
        (&["vhd2tar", "layer.tar", "-o", "b.tar"], "opengcs tar2vhd"),
        (&["vhd2tar", "cut.tar", "-o", "b.tar"], "opengcs"),
        (&["scratch", "layer.vhd"], "--force"),
        (&["kernel", "install", "--file", "layer.tar"], "vmlinuz"),
        (&["initrd", "build"], "opengcs kernel install"),
        (&["run", "--", "true"], "opengcs kernel install"),
        (&["man", "nonsense"], "opengcs --help"),
        (&["tar2vhd", "layer.tar", "-o", "a.qcow2"], "--format"),
        (&["scratch", "a.VMDK"], "--format"),
        (
            &["scratch", "a.vhdx", "--size", "0"],
            "opengcs scratch --help",
        ),
    ] {
        let output = place.opengcs(words).output().unwrap();
        let said = said(&output);
        assert!(!output.status.success(), "{words:?}");
        let lines: Vec<_> = said.lines().collect();
        let [line, told] = lines.as_slice() else {
            panic!("{words:?}: {said}");
        };
        assert!(line.starts_with("opengcs: "), "{said}");
        assert!(told.starts_with("hint: ") && told.contains(hint), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_not_ours_is_told_with_how_to_look() {
    // Root may write everywhere but to the kernel's own.
    let place = Place::new().with_layer();
    let target = "/sys/kernel/b.vhd";
    let output = place
        .opengcs(["tar2vhd", "-i", "layer.tar", "-o", target])
        .output()
        .unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(target) && said.contains("\nhint: "), "{said}");
}

#[test]
fn what_the_parser_refuses_has_the_form_of_every_failure() {
    let place = Place::new().with_layer();
    let before = place.names();
    for (words, line, hint) in [
        (
            &["tar2vhd", "layer.tar", "a.vhd"][..],
            "one word too many: a.vhd",
            "what is written is named with -o: -o a.vhd",
        ),
        (
            &["vhd2tar", "layer.vhd", "a.tar"],
            "one word too many: a.tar",
            "what is written is named with -o: -o a.tar",
        ),
        (
            &["tar2vhd", "layer.tar", "b.tar", "-o", "a.vhd"],
            "one word too many: b.tar",
            "`opengcs tar2vhd --help` tells what it takes",
        ),
        (
            &["tar2vhd", "-i", "layer.tar", "a.vhd"],
            "the argument '--input <TAR>' cannot be used with '[TAR]'",
            "-o names what is written",
        ),
        (
            &["vhd2tar", "-i", "layer.vhd", "a.tar"],
            "cannot be used with",
            "-o names what is written",
        ),
        (
            &["tar2vhd", "--outptu", "a.vhd"],
            "unexpected argument '--outptu' found",
            "a similar argument exists: '--output'",
        ),
        (
            &["scratch", "a.vhd", "--size", "many"],
            "invalid value 'many' for '--size <SIZE>': \"many\" is no unit",
            "`opengcs scratch --help` tells what it takes",
        ),
        (
            &["scratch", "a.vhd", "--format", "qcow2"],
            "invalid value 'qcow2' for '--format <FORMAT>' [possible values: vhd, vhdx, raw]",
            "`opengcs scratch --help` tells what it takes",
        ),
        (
            &["vm", "start"],
            "missing: <NAME>",
            "`opengcs vm start --help` tells what it takes",
        ),
        (
            &["vhd2tar", "layer.vhd", "--gzip", "--zstd"],
            "cannot be used with",
            "`opengcs vhd2tar --help` tells what it takes",
        ),
        (
            &["nonsense"],
            "opengcs has no command \"nonsense\"",
            "`opengcs --help` lists the commands",
        ),
        (
            &["vm", "strt"],
            "opengcs vm has no command \"strt\"",
            "'start'",
        ),
        (
            &["-q"],
            "opengcs needs a command",
            "`opengcs --help` lists them",
        ),
    ] {
        let output = place.opengcs(words).output().unwrap();
        let told = said(&output);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {told}");
        let lines: Vec<_> = told.lines().collect();
        let [first, second] = lines.as_slice() else {
            panic!("{words:?}: {told}");
        };
        assert!(
            first.starts_with("opengcs: ") && first.contains(line),
            "{told}"
        );
        assert!(
            second.starts_with("hint: ") && second.contains(hint),
            "{told}"
        );
        // Programs are told the same.
        let output = place
            .opengcs(["--json"].iter().chain(words))
            .output()
            .unwrap();
        let event: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(
            format!("opengcs: {}", event["message"].as_str().unwrap()),
            *first
        );
        assert_eq!(
            format!("hint: {}", event["hint"].as_str().unwrap()),
            *second
        );
    }
    assert_eq!(place.names(), before);
}
