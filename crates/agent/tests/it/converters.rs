//! The converters by name, judged by the tools of the system.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

fn run(program: &mut Command, input: &[u8]) -> Output {
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A converter that fails does not read to the end.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn gcs(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gcs"));
    command.arg0(format!("/bin/{name}")).env("TMPDIR", folder);
    command
}

fn tree(folder: &Path) {
    fs::create_dir_all(folder.join("upper/etc")).unwrap();
    fs::write(folder.join("upper/etc/motd"), "hello\n").unwrap();
    std::os::unix::fs::symlink("motd", folder.join("upper/etc/link")).unwrap();
}

fn listing(tar: &[u8]) -> Vec<String> {
    let output = run(Command::new("tar").arg("-t"), tar);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<String> = text
        .lines()
        .map(|name| {
            name.trim_start_matches("./")
                .trim_end_matches('/')
                .to_owned()
        })
        .filter(|name| !name.is_empty())
        .collect();
    names.sort();
    names
}

#[test]
fn a_tar_becomes_a_vhd_and_a_tar_again() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    let tar = run(
        Command::new("tar")
            .arg("-C")
            .arg(folder.path().join("upper"))
            .args(["-c", "etc"]),
        b"",
    )
    .stdout;
    let spool = tempfile::tempdir().unwrap();
    let vhd = run(gcs("tar2vhd", spool.path()).arg("-v"), &tar);
    assert!(
        vhd.status.success(),
        "{}",
        String::from_utf8_lossy(&vhd.stderr)
    );
    assert_eq!(
        vhd.stdout.get(vhd.stdout.len() - 512..).unwrap()[..8],
        *b"conectix"
    );

    let image = folder.path().join("image");
    fs::write(&image, &vhd.stdout).unwrap();
    let check = Command::new("e2fsck")
        .arg("-fn")
        .arg(&image)
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");

    let back = run(&mut gcs("vhd2tar", spool.path()), &vhd.stdout);
    assert!(
        back.status.success(),
        "{}",
        String::from_utf8_lossy(&back.stderr)
    );
    let names = listing(&back.stdout);
    assert_eq!(names, ["etc", "etc/link", "etc/motd"]);

    let from_file = gcs("vhd2tar", Path::new("/no/such/folder"))
        .stdin(fs::File::open(&image).unwrap())
        .output()
        .unwrap();
    assert!(from_file.status.success());
    assert_eq!(listing(&from_file.stdout), names);
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
}

#[test]
fn a_sandbox_is_exported_from_its_upper_folder() {
    let folder = tempfile::tempdir().unwrap();
    tree(folder.path());
    for arguments in [
        vec!["-path".to_owned(), folder.path().display().to_string()],
        vec![format!("--path={}", folder.path().display())],
    ] {
        let tar = run(gcs("exportSandbox", folder.path()).args(arguments), b"");
        assert!(
            tar.status.success(),
            "{}",
            String::from_utf8_lossy(&tar.stderr)
        );
        assert_eq!(listing(&tar.stdout), ["etc", "etc/link", "etc/motd"]);
    }
}

#[test]
fn failures_are_one_line_and_not_zero() {
    let spool = tempfile::tempdir().unwrap();
    let mut cut = vec![b'x'; 700];
    cut[257..263].copy_from_slice(b"ustar\0");
    for (mut command, input) in [
        (gcs("tar2vhd", spool.path()), cut.as_slice()),
        (gcs("vhd2tar", spool.path()), b"not a disk".as_slice()),
        (gcs("vhd2tar", spool.path()), b"".as_slice()),
        (
            gcs("vhd2tar", Path::new("/no/such/folder")),
            b"x".as_slice(),
        ),
        (gcs("exportSandbox", spool.path()), b"".as_slice()),
        (gcs("nothing", spool.path()), b"".as_slice()),
    ] {
        let output = run(&mut command, input);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let mut missing = gcs("exportSandbox", spool.path());
    missing.args(["-path", "/no/such"]);
    let output = run(&mut missing, b"");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && text.contains("/no/such"),
        "{text}"
    );
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
}
