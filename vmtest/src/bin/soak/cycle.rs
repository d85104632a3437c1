//! One cycle: a disk comes, what is on it is looked at, and it goes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use opengcs::layer::{Format, ScratchOptions, TarToDiskOptions, create_scratch, tar_to_disk};
use opengcs::{ErrorKind, HotAdd, OverlaySpec, UtilityVm};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// How many kinds of cycle there are; they take turns.
pub(crate) const KINDS: u64 = 7;

const LAYER: &str = "/mnt/soak-layer";
const SCRATCH: &str = "/mnt/soak-scratch";
const ROOT: &str = "/mnt/soak-root";

/// After which what was given up is there for ever.
const LONG: Duration = Duration::from_secs(60);

/// The disks that come and go.
pub(crate) struct Disks {
    folder: TempDir,
    /// The SHA-256 of the file that each layer has.
    hash: String,
    root_hash: String,
    scratch: PathBuf,
    /// What the scratch was written to last.
    written: u64,
}

/// How long adding and removing took.
#[derive(Default)]
pub(crate) struct Times {
    added: Vec<Duration>,
    removed: Vec<Duration>,
}

impl Times {
    pub(crate) fn summary(&self) -> String {
        let shown = |times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort();
            let at = |percent: usize| {
                let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
                times.get(place).map_or(0, Duration::as_millis)
            };
            format!("p50 {} ms, p99 {} ms", at(50), at(99))
        };
        format!(
            "add {}; remove {}",
            shown(&self.added),
            shown(&self.removed)
        )
    }
}

impl Disks {
    pub(crate) fn make() -> Result<Self> {
        let folder = TempDir::new()?;
        // Nothing that compresses or repeats: a block in the wrong place is another block.
        let mut content = Vec::new();
        for block in 0..2048_u32 {
            content.extend(Sha256::digest(block.to_le_bytes()));
        }
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "content", content.as_slice())?;
        let tar = tar.into_inner()?;
        let mut root_hash = None;
        for format in [Format::FixedVhd, Format::Vhdx, Format::Raw] {
            let path = folder.path().join(format!("layer.{format}"));
            let options = TarToDiskOptions {
                format,
                verity: format == Format::Raw,
                ..TarToDiskOptions::default()
            };
            let made = tar_to_disk(tar.as_slice(), &path, &options)?;
            root_hash = root_hash.or(made.verity.map(|tree| tree.root_hash));
        }
        let scratch = folder.path().join("scratch.vhdx");
        let options = ScratchOptions {
            size: 64 << 20,
            ..ScratchOptions::default()
        };
        create_scratch(&scratch, &options)?;
        Ok(Self {
            hash: hex(&Sha256::digest(&content)),
            root_hash: root_hash.context("no hash tree was made")?,
            folder,
            scratch,
            written: 0,
        })
    }

    fn layer(&self, format: Format) -> PathBuf {
        self.folder.path().join(format!("layer.{format}"))
    }

    /// One cycle; `number` says of which kind.
    pub(crate) async fn cycle(
        &mut self,
        vm: &UtilityVm,
        number: u64,
        times: &mut Times,
    ) -> Result<()> {
        let layer = |format| HotAdd::new(self.layer(format)).read_only(true);
        match number % KINDS {
            0 => {
                self.read(vm, layer(Format::FixedVhd).mount(LAYER), times)
                    .await
            }
            1 => self.read(vm, layer(Format::Vhdx).mount(LAYER), times).await,
            2 => {
                let disk = layer(Format::Raw).mount(LAYER);
                let disk = disk.verity_root(&self.root_hash);
                self.read(vm, disk, times).await
            }
            3 => self.device(vm, layer(Format::Raw), times).await,
            4 => self.write(vm, number, times).await,
            5 => self.give_up(vm, number).await,
            _ => self.stack(vm, times).await,
        }
    }

    async fn read(&self, vm: &UtilityVm, disk: HotAdd, times: &mut Times) -> Result<()> {
        let path = disk.host_path().to_owned();
        add(vm, disk, times).await?;
        let said = say(vm, &format!("sha256sum {LAYER}/content")).await?;
        ensure!(said.starts_with(&self.hash), "{}: {said}", path.display());
        remove(vm, &path, times).await
    }

    /// A disk that is only attached is read as a whole.
    async fn device(&self, vm: &UtilityVm, disk: HotAdd, times: &mut Times) -> Result<()> {
        let path = disk.host_path().to_owned();
        let added = add(vm, disk, times).await?;
        let said = say(vm, &format!("sha256sum {}", added.place.path())).await?;
        let expected = hex(&Sha256::digest(std::fs::read(&path)?));
        ensure!(said.starts_with(&expected), "{}: {said}", path.display());
        remove(vm, &path, times).await
    }

    /// What was written in the last turn is there, and is written anew.
    async fn write(&mut self, vm: &UtilityVm, number: u64, times: &mut Times) -> Result<()> {
        let disk = HotAdd::new(&self.scratch).mount(SCRATCH);
        add(vm, disk, times).await?;
        let script = format!(
            "cd {SCRATCH}; cat last 2>/dev/null || echo 0; echo {number} > last; \
             dd if=/dev/zero of=some bs=64k count=16 2>/dev/null; rm some"
        );
        let said = say(vm, &script).await?;
        ensure!(
            said.trim() == self.written.to_string(),
            "the scratch says {said}, not {}",
            self.written
        );
        self.written = number;
        let scratch = self.scratch.clone();
        remove(vm, &scratch, times).await
    }

    /// A process and a disk whose futures are dropped at some moment, another one each time. The process is
    /// killed and its streams are closed; the disk comes all the same, or was never begun.
    async fn give_up(&self, vm: &UtilityVm, number: u64) -> Result<()> {
        // Turns of this kind are `KINDS` apart: up to 14 ms, which is longer than most of this takes.
        let moment = Duration::from_micros((number / KINDS) % 20 * 700);
        let process = vm.run_process(["sleep", "1000"]);
        drop(tokio::time::timeout(moment, process).await);

        let path = self.layer(Format::FixedVhd);
        let disk = HotAdd::new(&path).read_only(true).mount(LAYER);
        drop(tokio::time::timeout(moment, vm.hot_add(disk)).await);
        let removal = tokio::time::timeout(moment, vm.hot_remove_vhd(&path)).await;
        drop(removal);
        // Whatever became of it, it can be told to go until it is not there.
        let begun = Instant::now();
        loop {
            match vm.hot_remove_vhd(&path).await {
                Err(error) if error.kind() == ErrorKind::NotAttached => break,
                // It is still being added or removed.
                Err(error) => ensure!(begun.elapsed() < LONG, "{}", error.report()),
                Ok(()) => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ensure!(say(vm, &format!("ls -d {LAYER} || echo none")).await? == "none\n");
        while say(vm, "ps | grep -c '[s]leep 1000' || true").await? != "0\n" {
            ensure!(
                begun.elapsed() < LONG,
                "a process that was given up runs on"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn stack(&self, vm: &UtilityVm, times: &mut Times) -> Result<()> {
        let path = self.layer(Format::Vhdx);
        add(vm, HotAdd::new(&path).mount(LAYER).read_only(true), times).await?;
        add(vm, HotAdd::new(&self.scratch).mount(SCRATCH), times).await?;
        let overlay = OverlaySpec::new(ROOT).layer(LAYER).scratch(SCRATCH);
        vm.combine_layers(&overlay).await?;
        let said = say(vm, &format!("cd {ROOT}; sha256sum content; rm content")).await?;
        ensure!(said.starts_with(&self.hash), "the overlay: {said}");
        vm.uncombine_layers(ROOT).await?;
        // The whiteout is there, and the next overlay begins with nothing.
        let script = format!("cd {SCRATCH} && test -c upper/content && rm -r upper work");
        say(vm, &script).await?;
        remove(vm, &self.scratch, times).await?;
        remove(vm, &path, times).await
    }

    /// The file system that was mounted thousands of times is as e2fsck wants it.
    pub(crate) fn judge(&self) -> Result<()> {
        let raw = self.folder.path().join("scratch.raw");
        let convert = Command::new("qemu-img")
            .args(["convert", "-O", "raw"])
            .args([&self.scratch, &raw])
            .status()?;
        ensure!(convert.success(), "qemu-img: {convert}");
        let path = std::env::var("PATH").unwrap_or_default();
        let check = Command::new("e2fsck")
            .arg("-fn")
            .arg(&raw)
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .output()?;
        ensure!(
            check.status.success(),
            "e2fsck: {}",
            String::from_utf8_lossy(&check.stdout)
        );
        Ok(())
    }
}

async fn add(vm: &UtilityVm, disk: HotAdd, times: &mut Times) -> Result<opengcs::Attachment> {
    let begun = Instant::now();
    let added = vm.hot_add(disk).await?;
    times.added.push(begun.elapsed());
    Ok(added)
}

async fn remove(vm: &UtilityVm, path: &Path, times: &mut Times) -> Result<()> {
    let begun = Instant::now();
    vm.hot_remove_vhd(path).await?;
    times.removed.push(begun.elapsed());
    Ok(())
}

async fn say(vm: &UtilityVm, script: &str) -> Result<String> {
    let output = vm.output(["sh", "-c", script], 64 << 10).await?;
    ensure!(
        output.status.success(),
        "`{script}`: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
