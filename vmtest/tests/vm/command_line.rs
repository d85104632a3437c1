//! `opengcs run`: a VM for one command, as a user starts it.

use std::ffi::OsStr;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::fixture::{nothing_in, odd_tar, test};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test(
            "command_line::run_passes_streams_and_code_through",
            streams_and_code,
        ),
        test(
            "command_line::run_reads_a_disk_and_records_its_start",
            reads_a_disk,
        ),
        test(
            "command_line::run_tells_a_missing_program_by_127",
            missing_program,
        ),
        test(
            "command_line::a_vm_that_dies_under_run_leaves_a_bundle_and_says_where",
            dies,
        ),
    ]
}

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn opengcs<S: AsRef<OsStr>>(arguments: &[S], input: &[u8]) -> Result<Run> {
    let program = std::env::var_os("OPENGCS_TEST_CLI")
        .context("OPENGCS_TEST_CLI is not set: run these tests with `cargo xtask test`")?;
    let runtime = TempDir::new()?;
    let mut child = Command::new(program)
        .arg("run")
        .args(arguments)
        .env("XDG_RUNTIME_DIR", runtime.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("the command has an input")?;
    let feed = async {
        // A command that wants no input closes it.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output?;
    nothing_in(runtime.path())?;
    Ok(Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

async fn streams_and_code() -> Result<()> {
    let script = "cat; echo \"$A\" >&2; exit 7";
    let run = opengcs(
        &["-i", "-e", "A=b c", "--", "sh", "-c", script],
        b"through\n",
    )
    .await?;
    let Run {
        code,
        stdout,
        stderr,
    } = run;
    ensure!(code == Some(7), "{code:?}: {stderr}");
    ensure!(stdout == "through\n", "{stdout}");
    ensure!(stderr == "b c\n", "{stderr}");
    Ok(())
}

async fn reads_a_disk() -> Result<()> {
    let folder = TempDir::new()?;
    let layer = folder.path().join("layer.vhd");
    opengcs::tar_to_vhd(&layer, odd_tar()?.as_slice())?;
    let mut disk = layer.into_os_string();
    disk.push(":/mnt/l:ro");
    let words = ["--", "cat", "/mnt/l/odd/before 1970"].map(OsStr::new);
    let (timeline, console) = (
        folder.path().join("timeline.json"),
        folder.path().join("console.log"),
    );
    let options = [
        OsStr::new("--disk"),
        &disk,
        OsStr::new("--controllers"),
        OsStr::new("2"),
        OsStr::new("--timeline"),
        timeline.as_os_str(),
        OsStr::new("--console"),
        console.as_os_str(),
    ];
    let arguments = [&options[..], &words[..]].concat();
    let Run {
        code,
        stdout,
        stderr,
    } = opengcs(&arguments, b"").await?;
    ensure!(
        code == Some(0) && stdout == "old",
        "{code:?}, {stdout}, {stderr}"
    );
    let timeline: serde_json::Value = serde_json::from_slice(&std::fs::read(&timeline)?)?;
    ensure!(timeline["aligned"] == true, "{timeline}");
    let stages = timeline["stages"].as_array().context("no stages")?;
    let at = |name: &str| {
        let stage = stages.iter().find(|stage| stage["name"] == name);
        stage.and_then(|stage| stage["at_ms"].as_f64())
    };
    let mut before = 0.0;
    for name in [
        "asked",
        "machine up",
        "init",
        "modules",
        "agent",
        "dialled",
        "negotiated",
        "ready",
    ] {
        let now = at(name).with_context(|| format!("no {name} in {timeline}"))?;
        ensure!(now >= before, "{name} in {timeline}");
        before = now;
    }
    ensure!(at("kernel entered") < at("init"), "{timeline}");
    let console = std::fs::read_to_string(&console)?;
    ensure!(console.contains("gcs: +"), "{console}");
    Ok(())
}

async fn missing_program() -> Result<()> {
    let Run { code, stderr, .. } = opengcs(&["--", "/no/such/program"], b"").await?;
    ensure!(code == Some(127), "{code:?}: {stderr}");
    ensure!(stderr.contains("/no/such/program"), "{stderr}");
    ensure!(stderr.trim().lines().count() == 1, "{stderr}");
    Ok(())
}

async fn dies() -> Result<()> {
    let bundles = TempDir::new()?;
    let folder = bundles.path().to_str().context("a folder with a name")?;
    let script = "echo before; echo c > /proc/sysrq-trigger; sleep 1000";
    let arguments = ["--bundles", folder, "--", "sh", "-c", script];
    let Run {
        code,
        stdout,
        stderr,
    } = opengcs(&arguments, b"").await?;
    ensure!(code == Some(125), "{code:?}: {stderr}");
    ensure!(stdout == "before\n", "{stdout}");
    ensure!(stderr.contains("panicked"), "{stderr}");
    let mut found = std::fs::read_dir(folder)?;
    let bundle = found.next().context("there is no bundle")??.path();
    ensure!(found.next().is_none(), "there is more than one");
    ensure!(stderr.contains(&bundle.display().to_string()), "{stderr}");
    let text = std::fs::read_to_string(&bundle)?;
    for part in ["sysrq", "Call Trace", "qemu-system-x86_64"] {
        ensure!(text.contains(part), "{part}: {text}");
    }
    Ok(())
}
