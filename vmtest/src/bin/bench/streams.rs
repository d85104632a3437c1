//! A process's input and output, in turns with a virtio-serial port of the same VM.
//!
//! Both sides run the same `dd` in the guest and are timed from its start to its end. Nothing stands between
//! a process and the vsock connection that is its stream, so there is no barer device to compare with.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use opengcs::{Config, UtilityVm};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::pairs::{Pairs, Turn, seconds};
use crate::row::{Row, Table};
use crate::scale::Scale;

const BLOCK: usize = 64 << 10;
const BLOCKS: usize = 2048;
const BYTES: usize = BLOCK * BLOCKS;
const BUFFER: usize = 256 << 10;
const PEER: &str = "virtio-serial";
const AIM: &str = "≤ 1";

const TO_GUEST: &str = "stdin to the guest, 128 MiB";
const TO_HOST: &str = "stdout from the guest, 128 MiB";

/// Boots a VM that has a port beside what all have, and measures both ways.
pub(crate) async fn measure(config: Config, scale: &Scale, table: &mut Table) -> Result<()> {
    let folder = tempfile::TempDir::new()?;
    let (vm, mut serial) = match with_port(config, folder.path()).await {
        Ok(both) => both,
        Err(error) => {
            for what in [TO_GUEST, TO_HOST] {
                table.add(Row::left_out(what, PEER, &format!("{error:#}")));
            }
            return Ok(());
        }
    };
    let (mut to_guest, mut to_host) = (Pairs::default(), Pairs::default());
    for pair in 0..scale.pairs.max(1) {
        for turn in 0..2 {
            if pair % 2 == turn {
                to_guest.ours.add(&stdin(&vm).await?);
                to_host.ours.add(&stdout(&vm).await?);
            } else {
                to_guest.theirs.add(&into_port(&vm, &mut serial).await?);
                to_host.theirs.add(&out_of_port(&vm, &mut serial).await?);
            }
        }
    }
    for (what, pairs) in [(TO_GUEST, to_guest), (TO_HOST, to_host)] {
        let (ours, theirs) = (rate(pairs.ours.median()), rate(pairs.theirs.median()));
        let mut row = Row::of(what, PEER, pairs).aiming(AIM, 1.0);
        row.ours = ours;
        row.against = format!("{PEER}: {theirs}");
        table.add(row);
    }
    vm.stop().await?;
    Ok(())
}

fn rate(time: Duration) -> String {
    let mib = f64::from(u32::try_from(BYTES >> 20).unwrap_or(u32::MAX));
    format!("{:.0} MiB/s", mib / seconds(time))
}

/// A VM whose QEMU is given one port more, by a program that stands before QEMU.
async fn with_port(mut config: Config, folder: &Path) -> Result<(UtilityVm, UnixStream)> {
    let qemu = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("qemu-system-x86_64"))
        .find(|program| program.is_file())
        .context("QEMU is not in PATH")?;
    let socket = folder.join("port");
    let wrapper = folder.join("qemu");
    let script = format!(
        "#!/bin/sh\nexec '{}' \"$@\" -chardev 'socket,id=bench,path={},server=on,wait=off' \
         -device virtio-serial-pci -device virtserialport,chardev=bench\n",
        qemu.display(),
        socket.display()
    );
    std::fs::write(&wrapper, script)?;
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
    config.hypervisor = Some(wrapper);
    let vm = UtilityVm::start(config).await?;
    let module = module().context("the kernel has no module virtio_console as it is loaded")?;
    let module = std::fs::read(module)?;
    let load = "cat > /tmp/virtio_console.ko && insmod /tmp/virtio_console.ko && ls /dev/vport*";
    let mut said = Vec::new();
    let status = vm
        .run_process_with(
            ["sh", "-c", load],
            module.as_slice(),
            tokio::io::sink(),
            &mut said,
        )
        .await?;
    if !status.success() {
        vm.stop().await?;
        bail!("{}", String::from_utf8_lossy(&said).trim());
    }
    Ok((vm, UnixStream::connect(&socket).await?))
}

/// The driver of the port, which the initrd does not have.
fn module() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("OPENGCS_DATA_DIR")?).join("modules");
    let releases = std::fs::read_dir(folder).ok()?;
    releases
        .filter_map(|release| Some(release.ok()?.path()))
        .map(|release| release.join("kernel/drivers/char/virtio_console.ko"))
        .find(|module| module.is_file())
}

fn turn(started: Instant) -> Turn {
    Turn {
        time: started.elapsed(),
        peak: None,
    }
}

async fn stdin(vm: &UtilityVm) -> Result<Turn> {
    let input = vec![0x5a; BYTES];
    let started = Instant::now();
    let status = vm
        .run_process_with(
            "dd of=/dev/null bs=64k",
            input.as_slice(),
            tokio::io::sink(),
            tokio::io::sink(),
        )
        .await?;
    ensure!(status.success(), "dd: {status}");
    Ok(turn(started))
}

async fn stdout(vm: &UtilityVm) -> Result<Turn> {
    let started = Instant::now();
    let status = vm
        .run_process_with(
            format!("dd if=/dev/zero bs=64k count={BLOCKS}"),
            tokio::io::empty(),
            tokio::io::sink(),
            tokio::io::sink(),
        )
        .await?;
    ensure!(status.success(), "dd: {status}");
    Ok(turn(started))
}

async fn into_port(vm: &UtilityVm, serial: &mut UnixStream) -> Result<Turn> {
    let input = vec![0x5a; BUFFER];
    let started = Instant::now();
    let command = format!(
        "dd if=$(ls /dev/vport* | head -n 1) of=/dev/null bs=64k count={BLOCKS} iflag=fullblock"
    );
    let ended = vm.output(["sh", "-c", &command], 4096);
    let fed = async {
        for _ in 0..BYTES / BUFFER {
            serial.write_all(&input).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let (ended, fed) = tokio::join!(ended, fed);
    fed?;
    let ended = ended?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "dd: {} {said}", ended.status);
    Ok(turn(started))
}

async fn out_of_port(vm: &UtilityVm, serial: &mut UnixStream) -> Result<Turn> {
    let mut buffer = vec![0; BUFFER];
    let started = Instant::now();
    let command = format!("dd if=/dev/zero of=$(ls /dev/vport* | head -n 1) bs=64k count={BLOCKS}");
    let ended = vm.output(["sh", "-c", &command], 4096);
    let drained = async {
        let mut left = BYTES;
        while left > 0 {
            let count = serial.read(&mut buffer).await?;
            ensure!(count > 0, "the port has ended");
            left -= count;
        }
        Ok(())
    };
    let (ended, drained) = tokio::join!(ended, drained);
    drained?;
    let ended = ended?;
    ensure!(ended.status.success(), "dd: {}", ended.status);
    Ok(turn(started))
}
