//! `opengcs exec`: streams, codes, signals, and who goes when the client goes.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::{Run, SHARED, User};
use crate::faults::send;

pub(super) async fn passes_through() -> Result<()> {
    let user = User::of_shared_vm().await?;
    let script = "cat; echo \"$A in $PWD as $(id -u)\" >&2; exit 7";
    let options = [
        "exec", "-i", "-e", "A=b c", "-w", "/tmp", "-u", "7:8", SHARED,
    ];
    let words = ["--", "sh", "-c", script];
    // More than all windows and buffers on the way hold.
    let input: Vec<u8> = (b'a'..=b'w').cycle().take(16 << 20).collect();
    let run = user
        .run(&[&options[..], &words[..]].concat(), &input)
        .await?;
    let Run {
        code,
        stdout,
        stderr,
    } = run;
    ensure!(code == Some(7), "{code:?}: {stderr}");
    ensure!(stderr == "b c in /tmp as 7\n", "{stderr}");
    ensure!(
        stdout.as_bytes() == input,
        "{} bytes came back",
        stdout.len()
    );

    // Without -i there is nothing to read, and what is written last is not cut.
    let script = "wc -c; seq 100000 | tail -n 1";
    let run = user
        .run(&["exec", SHARED, "--", "sh", "-c", script], b"ignored")
        .await?;
    ensure!(run.stdout == "0\n100000\n", "{}{}", run.stdout, run.stderr);

    // For programs: the output as it is, and after it what became of the command.
    let script = "echo out; echo err >&2; exit 125";
    let words = ["exec", "--json", SHARED, "--", "sh", "-c", script];
    let run = user.run(&words, b"").await?;
    ensure!(run.stdout == "out\n", "{}{}", run.stdout, run.stderr);
    let (said, done) = run.stderr.split_once('\n').context("no events")?;
    let done: serde_json::Value = serde_json::from_str(done)?;
    ensure!(
        said == "err" && done["event"] == "done" && done["exit_code"] == 125,
        "{done}"
    );
    let words = ["--json", "exec", "--detach", SHARED, "--", "true"];
    let done = user.json(&words).await?;
    ensure!(
        done["process"].is_u64() && done["name"] == SHARED && done["exit_code"].is_null(),
        "{done}"
    );
    Ok(())
}

pub(super) async fn cannot_be_run() -> Result<()> {
    let user = User::of_shared_vm().await?;
    user.fails(&["exec", SHARED, "--", "/no/such"], 127, &["/no/such"])
        .await?;
    user.fails(&["exec", SHARED, "--", "/etc"], 126, &["/etc"])
        .await?;
    let nobody = ["exec", "-u", "nosuchuser", SHARED, "--", "true"];
    user.fails(&nobody, 125, &["nosuchuser"]).await
}

pub(super) async fn hands_signals_on() -> Result<()> {
    let user = User::of_shared_vm().await?;
    let script = "trap 'echo usr1' USR1; trap 'echo int; exit 5' INT; echo ready; \
                  while :; do sleep 0.1; done";
    let mut child = user
        .opengcs(&["exec", SHARED, "--", "sh", "-c", script])?
        .spawn()?;
    let pid = child.id().context("it runs")?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut next = async || anyhow::Ok(lines.next_line().await?.unwrap_or_default());
    ensure!(next().await? == "ready");
    send("-USR1", pid)?;
    ensure!(next().await? == "usr1");
    send("-INT", pid)?;
    ensure!(next().await? == "int");
    let status = child.wait().await?;
    ensure!(status.code() == Some(5), "{status}");

    // What a signal ends has the code of that signal.
    let mut child = user
        .opengcs(&[
            "exec",
            SHARED,
            "--",
            "sh",
            "-c",
            "echo ready; exec sleep 1000",
        ])?
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    ensure!(lines.next_line().await?.as_deref() == Some("ready"));
    send("-TERM", child.id().context("it runs")?)?;
    let status = child.wait().await?;
    ensure!(status.code() == Some(143), "{status}");
    Ok(())
}

pub(super) async fn killed_client() -> Result<()> {
    let user = User::of_shared_vm().await?;
    // It does not end at a hang-up, so that it is killed after a while.
    let stubborn = "trap '' HUP; echo ready; sleep 1001; sleep 1002";
    let mut child = user
        .opengcs(&["exec", SHARED, "--", "sh", "-c", stubborn])?
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    ensure!(lines.next_line().await?.as_deref() == Some("ready"));
    let alone = user
        .ok(&["exec", "--detach", SHARED, "--", "sleep", "1003"])
        .await?;
    let alone = alone.trim();
    user.processes_become(SHARED, &["sleep 1003", &format!("sh -c {stubborn}")])
        .await?;
    child.kill().await?;
    user.process_goes(SHARED, &format!("sh -c {stubborn}"))
        .await?;

    let listed = user
        .ok(&["exec", SHARED, "--", "ps", "-o", "pid,args"])
        .await?;
    ensure!(
        !listed.contains("sleep 1001") && !listed.contains("sleep 1002"),
        "{listed}"
    );
    let goes_on = |line: &str| line.trim().starts_with(alone) && line.contains("sleep 1003");
    ensure!(listed.lines().any(goes_on), "{alone} in {listed}");
    user.ok(&["exec", SHARED, "--", "kill", "-KILL", alone])
        .await?;
    user.process_goes(SHARED, "sleep 1003").await
}

pub(super) async fn enough() -> Result<()> {
    let user = User::of_shared_vm().await?;
    let endless = ["sh", "-c", "exec yes endless"];
    let mut command = user.opengcs(&[&["exec", SHARED, "--"][..], &endless[..]].concat())?;
    let mut child = command.stderr(Stdio::null()).spawn()?;
    let mut stdout = child.stdout.take().context("no output")?;
    let mut some = vec![0; 1 << 20];
    stdout.read_exact(&mut some).await?;
    ensure!(some.starts_with(b"endless\n"));
    drop(stdout);
    let status = child.wait().await?;
    ensure!(status.code() == Some(141), "{status}");
    user.process_goes(SHARED, &endless.join(" ")).await
}
