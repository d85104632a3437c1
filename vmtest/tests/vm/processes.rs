//! Processes: their words, streams, ends and signals.

use std::sync::Arc;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use opengcs::{ErrorKind, ProcessSpec, UtilityVm};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fixture::{error_of, sh, shared};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared(
            "processes::code_and_streams_come_back_apart",
            code_and_streams,
        ),
        shared("processes::words_environment_and_folder_arrive", words),
        shared("processes::a_command_line_is_split_and_no_shell_runs", line),
        shared("processes::a_missing_program_is_named", missing),
        shared("processes::a_missing_folder_is_named", missing_folder),
        shared("processes::all_three_streams_move_together", together),
        shared(
            "processes::sixteen_megabytes_come_back_unchanged",
            round_trip,
        ),
        shared("processes::a_signal_is_its_number_and_128", signal),
        shared("processes::a_dropped_run_kills_its_process", dropped),
        shared("processes::a_terminal_is_one", terminal),
        shared("processes::orphans_are_reaped", orphans),
        shared("processes::stacks_and_diagnostics_are_there", diagnostics),
    ]
}

async fn code_and_streams(vm: Arc<UtilityVm>) -> Result<()> {
    let output = sh(&vm, "echo out; echo err >&2; exit 42").await?;
    ensure!(output.status.code() == 42, "{}", output.status);
    ensure!(output.stdout == b"out\n", "{:?}", output.stdout);
    ensure!(output.stderr == b"err\n", "{:?}", output.stderr);
    Ok(())
}

async fn words(vm: Arc<UtilityVm>) -> Result<()> {
    let script = "printf '%s|' \"$@\" \"$A\" \"$PWD\"";
    let spec = ProcessSpec::new(["sh", "-c", script, "sh", "two words", "$HOME;", ""])
        .env("A", "b 'c")
        .current_dir("/tmp");
    let output = vm.output(spec, 4096).await?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text == "two words|$HOME;||b 'c|/tmp|", "{text}");
    Ok(())
}

async fn line(vm: Arc<UtilityVm>) -> Result<()> {
    let output = vm.output("echo 'one  word' $HOME ; \"x y\"", 4096).await?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text == "one  word $HOME ; x y\n", "{text}");
    let usual = vm.output("env", 4096).await?;
    let text = String::from_utf8(usual.stdout)?;
    ensure!(
        text.contains("PATH=") && text.contains("/usr/bin"),
        "{text}"
    );
    Ok(())
}

async fn missing(vm: Arc<UtilityVm>) -> Result<()> {
    let error = error_of(vm.output(["/no/such/program"], 64).await)?;
    ensure!(
        error.kind() == ErrorKind::GuestRefused,
        "{:?}",
        error.kind()
    );
    let text = error.report();
    ensure!(text.contains("/no/such/program"), "{text}");
    ensure!(text.to_lowercase().contains("no such file"), "{text}");
    ensure!(!text.contains('\n'), "{text}");
    Ok(())
}

async fn missing_folder(vm: Arc<UtilityVm>) -> Result<()> {
    let spec = ProcessSpec::new(["true"]).current_dir("/no/such/folder");
    let text = error_of(vm.output(spec, 64).await)?.report();
    ensure!(text.contains("/no/such/folder"), "{text}");
    Ok(())
}

/// More than any buffer on the way, in all directions at once: nobody waits for anybody.
async fn together(vm: Arc<UtilityVm>) -> Result<()> {
    let input = vec![b'x'; 4 << 20];
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let script = "head -c 3000000 /dev/zero >&2; cat; head -c 3000000 /dev/zero >&2";
    let status = vm
        .run_process_with(["sh", "-c", script], input.as_slice(), &mut out, &mut err)
        .await?;
    ensure!(status.success(), "{status}");
    ensure!(out == input, "{} bytes came back", out.len());
    ensure!(err.len() == 6_000_000, "{} bytes of stderr", err.len());
    Ok(())
}

async fn round_trip(vm: Arc<UtilityVm>) -> Result<()> {
    let sent: Vec<u8> = (0..4_u32 << 20).flat_map(u32::to_le_bytes).collect();
    let mut received = Vec::new();
    let status = vm
        .run_process_with("cat", sent.as_slice(), &mut received, tokio::io::sink())
        .await?;
    ensure!(
        status.success() && received == sent,
        "{} bytes",
        received.len()
    );
    Ok(())
}

async fn signal(vm: Arc<UtilityVm>) -> Result<()> {
    let mut sleeper = vm.run_process("sleep 1000").await?;
    ensure!(sleeper.try_wait()?.is_none());
    sleeper.signal(15).await?;
    let status = sleeper.wait().await?;
    ensure!(
        status.code() == 128 + 15 && status.signal() == Some(15),
        "{status}"
    );
    let mut sleeper = vm.run_process("sleep 1000").await?;
    sleeper.kill().await?;
    ensure!(sleeper.wait().await?.signal() == Some(9));
    ensure!(sleeper.wait().await?.signal() == Some(9), "asked twice");
    sleeper.close();
    Ok(())
}

async fn dropped(vm: Arc<UtilityVm>) -> Result<()> {
    let run = vm.run_process_with(
        "sleep 7654",
        tokio::io::empty(),
        tokio::io::sink(),
        tokio::io::sink(),
    );
    let limit = std::time::Duration::from_secs(2);
    ensure!(tokio::time::timeout(limit, run).await.is_err());
    for _ in 0..100 {
        if !sh(&vm, "ps | grep -v grep | grep -q 'sleep 7654'")
            .await?
            .status
            .success()
        {
            return Ok(());
        }
    }
    anyhow::bail!("the process of a dropped run is still there");
}

async fn terminal(vm: Arc<UtilityVm>) -> Result<()> {
    let mut process = vm
        .run_process(
            ProcessSpec::new(["sh", "-c", "tty; read line; stty size; exit 3"]).terminal(true),
        )
        .await?;
    process.resize(40, 100).await?;
    let (mut input, mut output) = (process.stdin.take(), process.stdout.take());
    let (Some(input), Some(output)) = (&mut input, &mut output) else {
        anyhow::bail!("a terminal has an input and an output");
    };
    input.write_all(b"go\n").await?;
    let mut text = String::new();
    output.read_to_string(&mut text).await?;
    ensure!(text.contains("/dev/pts/"), "{text:?}");
    ensure!(text.contains("40 100"), "{text:?}");
    ensure!(process.wait().await?.code() == 3);
    Ok(())
}

async fn orphans(vm: Arc<UtilityVm>) -> Result<()> {
    sh(&vm, "for i in 1 2 3; do (sleep 0.1 &) ; done").await?;
    for _ in 0..100 {
        if !sh(&vm, "grep -l '^State:.Z' /proc/[0-9]*/status")
            .await?
            .status
            .success()
        {
            return Ok(());
        }
    }
    anyhow::bail!("zombies stay in the guest");
}

async fn diagnostics(vm: Arc<UtilityVm>) -> Result<()> {
    ensure!(!vm.stacks().await?.is_empty());
    let found = vm.debug_gcs().await;
    ensure!(found.to_string().contains("gcs"), "{found}");
    Ok(())
}
