//! Runs the foreign judges; a missing one fails the test.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Runs `qemu-img` and gives its output, with its exit code.
pub(crate) fn qemu_img_code<A: AsRef<OsStr>>(arguments: &[A]) -> (i32, String) {
    let output = Command::new("qemu-img")
        .args(arguments)
        .output()
        .expect("qemu-img must be installed (package qemu-utils)");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text.into_owned())
}

/// Runs `qemu-img`, which must succeed.
pub(crate) fn qemu_img<A: AsRef<OsStr>>(arguments: &[A]) -> String {
    let (code, text) = qemu_img_code(arguments);
    let shown: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    assert_eq!(code, 0, "qemu-img {shown:?}: {text}");
    text
}

/// Runs commands of `qemu-io` on a file, which must succeed.
pub(crate) fn qemu_io(format: &str, path: &Path, commands: &[&str]) -> String {
    let mut command = Command::new("qemu-io");
    command.args(["-f", format]);
    for one in commands {
        command.args(["-c", one]);
    }
    let output = command
        .arg(path)
        .output()
        .expect("qemu-io must be installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && !text.contains("verification failed"),
        "qemu-io {commands:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
