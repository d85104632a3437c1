//! Streams of many processes at once: every byte arrives, unchanged, and before the exit code.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use opengcs::UtilityVm;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fixture::shared;

/// How many MiB each process carries there and back; `cargo xtask test --long` makes it 10 GiB for all.
const MIB_VARIABLE: &str = "OPENGCS_TEST_STREAM_MIB";
const MIB: u32 = 3;

const PROCESSES: u32 = 16;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        shared(
            "streams::sixteen_processes_at_once_change_no_byte",
            sixteen_at_once,
        ),
        shared(
            "streams::the_last_byte_is_there_before_the_code",
            last_byte_first,
        ),
        shared(
            "streams::all_that_was_written_comes_before_the_reset",
            before_the_reset,
        ),
    ];
    // Counters of 32 bits go round in it.
    if std::env::var_os(MIB_VARIABLE).is_some() {
        trials.push(shared(
            "streams::one_stream_of_more_than_4_gib_changes_no_byte",
            |vm| there_and_back(vm, PROCESSES, 4100),
        ));
    }
    trials
}

async fn sixteen_at_once(vm: Arc<UtilityVm>) -> Result<()> {
    let mib = match std::env::var(MIB_VARIABLE) {
        Ok(told) => told
            .parse()
            .with_context(|| format!("{MIB_VARIABLE}={told} is no number of MiB"))?,
        Err(_) => MIB,
    };
    let running: Vec<_> = (0..PROCESSES)
        .map(|number| tokio::spawn(there_and_back(Arc::clone(&vm), number, mib)))
        .collect();
    for process in running {
        process.await??;
    }
    Ok(())
}

/// Sends `mib` MiB that no other process gets through `cat`, and compares their digests.
async fn there_and_back(vm: Arc<UtilityVm>, number: u32, mib: u32) -> Result<()> {
    let mut process = vm.run_process("cat").await?;
    let mut stdin = process.stdin.take().context("cat has an input")?;
    let mut stdout = process.stdout.take().context("cat has an output")?;
    let sender = tokio::spawn(async move {
        let mut sent = Sha256::new();
        for step in 0..mib {
            let chunk = chunk(number, step);
            sent.update(&chunk);
            stdin.write_all(&chunk).await?;
        }
        stdin.shutdown().await?;
        Ok::<_, anyhow::Error>(sent.finalize())
    });
    let mut received = Sha256::new();
    let mut bytes = 0_u64;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = stdout.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        received.update(&buffer[..read]);
        bytes += u64::try_from(read)?;
    }
    let sent = sender.await??;
    let status = process.wait().await?;
    ensure!(status.success(), "process {number}: {status}");
    ensure!(
        bytes == u64::from(mib) << 20,
        "process {number}: {bytes} of {mib} MiB came back"
    );
    ensure!(
        sent == received.finalize(),
        "process {number}: other bytes came back"
    );
    Ok(())
}

/// A MiB that differs from all others of the test.
fn chunk(number: u32, step: u32) -> Vec<u8> {
    let mut state = (u64::from(number) << 32 | u64::from(step)) ^ 0x9e37_79b9_7f4a_7c15;
    (0..1 << 17)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect()
}

/// Nobody reads until the code is known: what was written must be there all the same.
async fn last_byte_first(vm: Arc<UtilityVm>) -> Result<()> {
    let script = "head -c 40000 /dev/zero; printf last; printf tail >&2; exit 7";
    for round in 0..20 {
        let mut process = vm.run_process(["sh", "-c", script]).await?;
        let status = process.wait().await?;
        ensure!(status.code() == 7, "round {round}: {status}");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let stdout = process.stdout.as_mut().context("an output")?;
        stdout.read_to_end(&mut out).await?;
        let stderr = process.stderr.as_mut().context("an output for errors")?;
        stderr.read_to_end(&mut err).await?;
        ensure!(
            out.len() == 40_004 && out.ends_with(b"last") && err == b"tail",
            "round {round}: {} and {} bytes",
            out.len(),
            err.len()
        );
    }
    Ok(())
}

/// A process that is killed in the midst of its output, and one whose socket is reset at once because its
/// input was not read: what they had written comes whole, in order, and then an end.
async fn before_the_reset(vm: Arc<UtilityVm>) -> Result<()> {
    let script = "head -c 150000 /dev/zero | tr '\\0' x; printf last; kill -9 $$";
    for (round, unread) in [0_usize, 100_000].into_iter().cycle().take(10).enumerate() {
        let mut process = vm.run_process(["sh", "-c", script]).await?;
        let mut stdin = process.stdin.take().context("an input")?;
        // It may end before it is written to.
        let _ = stdin.write_all(&vec![b'u'; unread]).await;
        let status = process.handle().wait().await?;
        ensure!(status.signal() == Some(9), "round {round}: {status}");
        let mut out = Vec::new();
        let stdout = process.stdout.as_mut().context("an output")?;
        stdout.read_to_end(&mut out).await?;
        let whole = out.len() == 150_004 && out.ends_with(b"xlast");
        ensure!(whole, "round {round}: {} bytes", out.len());
        drop(stdin);
    }
    Ok(())
}
