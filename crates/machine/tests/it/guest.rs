//! Decides what the tests' guest is made of: an initrd of one static program and the modules it loads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use opengcs_machine::qemu::Qemu;
use opengcs_machine::{
    Acceleration, Boot, Chipset, Listener, Machine, MachineConfig, Port, Stream,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// In the order in which they depend on each other. What a kernel has built in is left out.
const MODULES: [&str; 15] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_mmio",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
    "virtio_console",
    "scsi_common",
    "scsi_mod",
    "virtio_scsi",
    "crc64-rocksoft",
    "sd_mod",
];

/// Modules that those above need in some kernels.
const BEFORE_SD: [&str; 3] = ["crc64", "crct10dif_common", "t10-pi"];

fn environment(name: &str) -> PathBuf {
    std::env::var_os(name)
        .unwrap_or_else(|| {
            panic!("{name} is not set: run the tests by `cargo xtask test`, which sets it")
        })
        .into()
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if let Some(found) = find(&path, name) {
                return Some(found);
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Some(path);
        }
    }
    None
}

/// A module as the kernel loads it, however the distribution has compressed it.
fn module(modules: &Path, name: &str) -> Option<Vec<u8>> {
    if let Some(path) = find(modules, &format!("{name}.ko")) {
        return Some(fs::read(path).unwrap());
    }
    [("xz", "xz"), ("zst", "zstd"), ("gz", "gzip")]
        .iter()
        .find_map(|(extension, program)| {
            let path = find(modules, &format!("{name}.ko.{extension}"))?;
            let output = Command::new(program).arg("-dc").arg(path).output().unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
            Some(output.stdout)
        })
}

/// The peer as a static program: for musl, or else for glibc.
fn peer() -> PathBuf {
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peer");
    let build = |target: &str, flags: &str| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--release", "--example", "vsock_peer"])
            .args(["--package", "opengcs-machine", "--target", target])
            .arg("--target-dir")
            .arg(&target_dir)
            .env("RUSTFLAGS", flags)
            .output()
            .unwrap();
        let path = target_dir.join(target).join("release/examples/vsock_peer");
        if output.status.success() {
            Ok(path)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    };
    build("x86_64-unknown-linux-musl", "").unwrap_or_else(|musl| {
        build("x86_64-unknown-linux-gnu", "-C target-feature=+crt-static")
            .unwrap_or_else(|gnu| panic!("the guest's program does not build:\n{musl}\n{gnu}"))
    })
}

/// A cpio archive in the "newc" format.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            content.len().try_into().unwrap(),
            0,
            0,
            0,
            0,
            u32::try_from(name.len()).unwrap() + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The initrd, built once for all tests.
fn initrd() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let modules = environment("OPENGCS_TEST_MODULES");
        let mut archive = Cpio::default();
        archive.entry("dev", 0o040_755, &[]);
        archive.entry("dev/console", 0o020_600, &[]);
        // The console's device numbers, in the entry just written.
        let at = archive.bytes.len() - (110 + "dev/console".len() + 1).next_multiple_of(4);
        archive.bytes[at + 78..at + 94].copy_from_slice(b"0000000500000001");
        archive.entry("modules", 0o040_755, &[]);
        let mut load = String::new();
        for name in MODULES.iter().flat_map(|name| match *name {
            "crc64-rocksoft" => BEFORE_SD.iter().chain([name]).collect::<Vec<_>>(),
            _ => vec![name],
        }) {
            if let Some(module) = module(&modules, name) {
                let inside = format!("modules/{name}.ko");
                archive.entry(&inside, 0o100_644, &module);
                load.push_str(&format!("/{inside}\n"));
            }
        }
        archive.entry("modules/load", 0o100_644, load.as_bytes());
        archive.entry("init", 0o100_755, &fs::read(peer()).unwrap());
        archive.entry("TRAILER!!!", 0, &[]);
        // Renamed into place: another run may be reading the one before.
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = dir.join("initrd.img");
        let new = dir.join(format!("initrd-{}.img", std::process::id()));
        fs::write(&new, archive.bytes).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    })
}

/// A machine whose guest obeys.
pub(crate) struct Guest {
    pub(crate) machine: Qemu,
    control: BufReader<Stream>,
    pub(crate) dir: tempfile::TempDir,
}

/// A machine's configuration in a folder of its own.
pub(crate) fn config(dir: &Path) -> MachineConfig {
    let kernel = environment("OPENGCS_TEST_KERNEL");
    let chipset = match std::env::var("OPENGCS_TEST_CHIPSET").as_deref() {
        Ok("q35") => Chipset::Q35,
        Ok("microvm") => Chipset::MicroVm,
        _ => Chipset::Auto,
    };
    MachineConfig::new(
        "test",
        dir,
        Boot::LinuxKernel {
            kernel,
            initrd: Some(initrd().to_owned()),
            command_line: "quiet".to_owned(),
        },
    )
    .acceleration(Acceleration::Auto)
    .chipset(chipset)
}

impl Guest {
    pub(crate) async fn boot() -> Self {
        Self::boot_with(|config| config).await
    }

    pub(crate) async fn boot_with(change: impl FnOnce(MachineConfig) -> MachineConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machine = Qemu::create(change(config(dir.path()))).unwrap();
        let mut listener = machine.listen(Port(1000)).unwrap();
        machine.power_on().await.unwrap();
        let control = accept(&machine, &mut listener).await;
        Self {
            machine,
            control: BufReader::new(control),
            dir,
        }
    }

    /// Gives an order and returns the guest's answer.
    pub(crate) async fn order(&mut self, order: &str) -> String {
        self.send(order).await;
        let mut answer = String::new();
        self.control.read_line(&mut answer).await.unwrap();
        answer.trim().to_owned()
    }

    /// Gives an order that is not answered.
    pub(crate) async fn send(&mut self, order: &str) {
        self.control
            .write_all(format!("{order}\n").as_bytes())
            .await
            .unwrap();
    }

    /// Has the guest take its vsock driver from the device and give it back, and takes its new call.
    pub(crate) async fn rebind(&mut self) {
        let mut listener = self.machine.listen(Port(1000)).unwrap();
        self.send("rebind").await;
        self.control = BufReader::new(accept(&self.machine, &mut listener).await);
    }

    /// Waits until the guest's disks are as wanted.
    pub(crate) async fn disks(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        for _ in 0..200 {
            let disks = self.order("disks").await;
            if wanted(&disks) {
                return disks;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the guest's disks are {}", self.order("disks").await);
    }
}

/// Accepts a connection, or panics with the console if the machine ends or hangs instead.
pub(crate) async fn accept(machine: &Qemu, listener: &mut Listener) -> Stream {
    tokio::select! {
        stream = listener.accept() => stream.unwrap(),
        exit = machine.wait() => panic!("{exit}\n{}", machine.console_tail()),
        () = tokio::time::sleep(Duration::from_secs(120)) => {
            panic!("the guest does not dial\n{}", machine.console_tail())
        }
    }
}
