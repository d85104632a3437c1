//! Which programs of the distribution the tasks need, and how they come to a fresh machine.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// A program, or a file by its path, and the Debian and Ubuntu package that has it.
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// What the main job needs: a VM, and a foreign judge of the images.
pub(crate) const DEMO: &[Tool] = &[
    tool("qemu-system-x86_64", "qemu-system-x86"),
    tool("e2fsck", "e2fsprogs"),
    tool("dpkg-deb", "dpkg"),
];

/// What many cycles of disks need: a VM, and the judges of the disk that was written to.
pub(crate) const SOAK: &[Tool] = &[
    tool("qemu-system-x86_64", "qemu-system-x86"),
    tool("qemu-img", "qemu-utils"),
    tool("e2fsck", "e2fsprogs"),
    tool("dpkg-deb", "dpkg"),
];

/// What the tests need on top: the judges of disk files and streams.
pub(crate) const TEST: &[Tool] = &[
    tool("qemu-system-x86_64", "qemu-system-x86"),
    tool("e2fsck", "e2fsprogs"),
    tool("debugfs", "e2fsprogs"),
    tool("dpkg-deb", "dpkg"),
    tool("qemu-img", "qemu-utils"),
    tool("veritysetup", "cryptsetup-bin"),
    // What runs containers in the VM.
    tool("crun", "crun"),
    tool("/usr/sbin/runc", "runc"),
    tool("tar", "tar"),
    tool("gzip", "gzip"),
    tool("xz", "xz-utils"),
    tool("zstd", "zstd"),
    tool("setfattr", "attr"),
    // Writers of tars other than our own.
    tool("bsdtar", "libarchive-tools"),
    tool("busybox", "busybox-static"),
    tool("cpio", "cpio"),
    // Firmware that boots disks, and the judges of such disks.
    tool("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    tool("/sbin/sfdisk", "fdisk"),
    tool("/sbin/fsck.fat", "dosfstools"),
    tool("mcopy", "mtools"),
    tool("objdump", "binutils"),
    tool("git", "git"),
    tool("pax", "pax"),
    tool("python3", "python3"),
    tool("kill", "procps"),
];

/// What the benchmarks of disks are held against, and the judge of what they make.
pub(crate) const PEERS: &[Tool] = &[
    tool("mkfs.ext4", "e2fsprogs"),
    tool("debugfs", "e2fsprogs"),
    tool("e2fsck", "e2fsprogs"),
    tool("mount", "mount"),
    tool("tar", "tar"),
    tool("zstd", "zstd"),
];

/// What packages are made with.
pub(crate) const DIST: &[Tool] = &[
    tool("dpkg-deb", "dpkg"),
    tool("tar", "tar"),
    tool("gzip", "gzip"),
    tool("strip", "binutils"),
    tool("objdump", "binutils"),
    tool("git", "git"),
];

/// What a clean Debian is made with, to try the package in.
pub(crate) const CLEAN_ROOT: &[Tool] = &[
    tool("mmdebstrap", "mmdebstrap"),
    tool(
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
    ),
];

/// What programs for Windows are linked with.
pub(crate) const WINDOWS: &[Tool] = &[tool("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64")];

/// What the fuzz targets ask.
pub(crate) const FUZZ: &[Tool] = &[tool("e2fsck", "e2fsprogs"), tool("c++", "g++")];

/// Whether images can be mounted in this host's kernel: by root, with loop devices. Tried with one.
pub(crate) fn can_mount() -> Result<()> {
    if !is_root() {
        bail!("it takes root");
    }
    let folder = run::target_dir().join("can-mount");
    let (image, at) = (folder.join("image"), folder.join("at"));
    fs::create_dir_all(&at).with_context(|| format!("cannot make {}", at.display()))?;
    let tried = || -> Result<()> {
        fs::File::create(&image)?.set_len(4 << 20)?;
        run::output(
            Command::new("mke2fs")
                .args(["-q", "-F", "-t", "ext4"])
                .arg(&image),
        )?;
        run::output(
            Command::new("mount")
                .args(["-o", "loop,ro"])
                .args([&image, &at]),
        )
        .context("no loop device can be mounted")?;
        run::output(Command::new("umount").arg(&at))?;
        Ok(())
    };
    let tried = tried();
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    tried
}

/// Installs the packages of the `tools` that are not there, saying so first.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let mut missing: Vec<&str> = tools
        .iter()
        .filter(|tool| !run::installed(tool.program))
        .map(|tool| tool.package)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

/// Installs packages of the distribution, saying so first.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if !run::installed("apt-get") {
        bail!(
            "these packages are needed and there is no apt-get to install them with: {}",
            packages.join(" ")
        );
    }
    println!("installing what is not there yet: {}", packages.join(" "));
    run::run(apt().arg("update").arg("-qq"))?;
    run::run(
        apt()
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(packages),
    )
}

/// `apt-get` with the rights to install: through sudo unless we are root.
fn apt() -> Command {
    let mut command = if is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Package lists that a machine has never fetched make every download fail.
pub(crate) fn ensure_package_lists() -> Result<()> {
    let known = Command::new("apt-cache")
        .args(["show", "--no-all-versions", "busybox-static"])
        .output()
        .is_ok_and(|output| output.status.success() && !output.stdout.is_empty());
    if known {
        return Ok(());
    }
    run::run(apt().arg("update").arg("-qq"))
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    run::output(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}
