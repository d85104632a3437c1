//! A disk that is full, by a limit on file sizes that any user can set, and for root by a small tmpfs.

use assert_cmd::Command;

use crate::fixture::{Place, gzip, said, tar};

/// The program under `ulimit -f`, which counts 512 bytes: writing more gives EFBIG.
fn limited(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -f 256; exec \"$0\" \"$@\""])
        .arg(assert_cmd::cargo::cargo_bin("opengcs"))
        .args(arguments);
    place.surround(&mut command);
    command
}

#[test]
fn no_file_is_left_when_it_may_not_grow() {
    let place = Place::new().with_layer();
    for arguments in [
        &["tar2vhd", "-i", "layer.tar", "-o", "b.vhd"][..],
        &["tar2vhd", "-i", "layer.tar", "-o", "b.vhdx"],
        &["tar2vhd", "-i", "layer.tar", "-o", "b.img"],
        &["vhd2tar", "layer.vhd", "-o", "b.tar"],
        &["vhd2tar", "layer.vhd", "-o", "b.tar.gz", "--gzip"],
    ] {
        // Not a full disk.
        let told = match arguments[0] {
            "tar2vhd" => "ulimit -f",
            _ => "file too large",
        };
        place.fails_as(&mut limited(&place, arguments), 1, &["b.", told]);
    }
    // One that is there stays as it was.
    place.write("old.tar", b"old");
    place.fails_as(
        &mut limited(&place, &["vhd2tar", "layer.vhd", "-o", "old.tar"]),
        1,
        &["old.tar"],
    );
    assert_eq!(std::fs::read(place.path("old.tar")).unwrap(), b"old");
}

#[test]
fn no_file_is_left_on_a_small_file_system() {
    let place = Place::new();
    place.write("layer.tar.gz", &gzip(&tar()));
    let small = place.path("small");
    std::fs::create_dir(&small).unwrap();
    // A mount namespace of one's own: nothing of it stays. Only root, or who may have a user
    // namespace, can do that; the test above holds for everybody else.
    let run = |inside: &str| {
        std::process::Command::new("unshare")
            .args(["--mount", "sh", "-ec", inside])
            .arg(assert_cmd::cargo::cargo_bin("opengcs"))
            .current_dir(place.work())
            .output()
            .unwrap()
    };
    let probe = run("mount -t tmpfs -o size=300k none small");
    if !probe.status.success() {
        assert_ne!(
            std::fs::metadata("/proc/self")
                .map(|found| {
                    use std::os::unix::fs::MetadataExt as _;
                    found.uid()
                })
                .unwrap(),
            0,
            "root can mount a tmpfs: {}",
            said(&probe)
        );
        return;
    }
    let output = run("mount -t tmpfs -o size=300k none small
         if \"$0\" tar2vhd -i layer.tar.gz -o small/b.vhd; then exit 9; fi
         ls -A small");
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("small/b.vhd") && said.contains("full"),
        "{said}"
    );
    assert!(
        !said.contains("no space"),
        "the cause is told twice: {said}"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{said}");
}
