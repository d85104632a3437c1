//! Runs a judge, which is a program of Linux, from a test that wine runs.
//!
//! Wine starts such programs and tells neither their exit code nor what they print, so a shell writes
//! both into files. Paths of the prefix's `C:` and of `Z:`, which is the whole Linux host, are translated.

use std::ffi::OsStr;
use std::os::windows::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, Instant};

/// A judge takes a second, and this long on a host that has a lot to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// Standard output and error of `program` are kept apart, as on Linux.
const SCRIPT: &str = r#"
    PATH=/usr/sbin:/sbin:/usr/bin:/bin LC_ALL=C; export PATH LC_ALL
    cd "$1"; shift
    "$@" </dev/null >stdout 2>stderr; echo $? >code.part; mv code.part code
"#;

/// Runs `program` to its end.
pub(super) fn output<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> std::io::Result<Output> {
    let folder = tempfile::tempdir()?;
    Command::new(r"Z:\bin\sh")
        .args(["-c", SCRIPT, "sh", &unix(folder.path().as_os_str())])
        .arg(program)
        .args(
            arguments
                .into_iter()
                .map(|argument| unix(argument.as_ref())),
        )
        .spawn()?;
    let started = Instant::now();
    let code = loop {
        if let Ok(code) = std::fs::read_to_string(folder.path().join("code")) {
            break code;
        }
        if started.elapsed() > PATIENCE {
            return Err(std::io::Error::other(format!(
                "it has not ended within {} s",
                PATIENCE.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let code: u32 = code.trim().parse().map_err(std::io::Error::other)?;
    if code == 127 {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    Ok(Output {
        status: ExitStatus::from_raw(code),
        stdout: std::fs::read(folder.path().join("stdout"))?,
        stderr: std::fs::read(folder.path().join("stderr"))?,
    })
}

/// A path as Linux knows it; everything else as it is.
fn unix(argument: &OsStr) -> String {
    let text = argument.to_str().expect("arguments of judges are text");
    let prefix = std::env::var("WINEPREFIX").expect("run by `cargo xtask test --windows`");
    for (drive, folder) in [(r"C:\", format!("{prefix}/drive_c/")), (r"Z:\", "/".into())] {
        if let Some(rest) = text.strip_prefix(drive) {
            return folder + &rest.replace('\\', "/");
        }
    }
    let exists = Path::new(text).is_file();
    if exists {
        text.replace('\\', "/")
    } else {
        text.to_owned()
    }
}
