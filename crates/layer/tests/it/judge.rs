//! Foreign judges. A missing one fails the test.

use std::path::Path;
use std::process::Output;

#[cfg(windows)]
#[path = "../../../../xtask/windows/judge.rs"]
mod linux;

#[cfg(not(windows))]
mod linux {
    pub fn output(program: &str, arguments: &[&str]) -> std::io::Result<std::process::Output> {
        std::process::Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output()
    }
}

pub fn run(program: &str, arguments: &[&str]) -> Output {
    linux::output(program, arguments)
        .unwrap_or_else(|error| panic!("{program} is needed and cannot be run: {error}"))
}

pub fn succeed(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = run(program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Holds an image against `e2fsck`, which must find nothing to say.
pub fn fsck(image: &Path) {
    let output = run("e2fsck", &["-fn", image.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout);
    let passes = text.lines().filter(|line| {
        !line.starts_with("Pass ") && !line.contains(" files (") && !line.is_empty()
    });
    assert!(
        output.status.success() && passes.clone().count() == 0,
        "e2fsck: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
