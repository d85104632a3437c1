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
