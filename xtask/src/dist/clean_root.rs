//! A fresh Debian 12 in a folder: the packages are installed and used there, where nothing else is.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{Packages, tool};
use crate::{guest, host, run};

/// What a user types there, and what must be seen of it.
const USED: &[(&str, &str)] = &[
    (
        "opengcs --version",
        concat!("opengcs ", env!("CARGO_PKG_VERSION")),
    ),
    // No QEMU is there: it says so, and fails for that.
    (
        "opengcs doctor || test $? = 1",
        "the package is qemu-system-x86",
    ),
    ("man -w opengcs", "/usr/share/man/man1/opengcs.1.gz"),
    ("man -w opengcs-tar2vhd", "opengcs-tar2vhd.1.gz"),
    (
        "cd /tmp && tar -C / -c etc/passwd etc/group | opengcs tar2vhd -o layer.vhd && \
         opengcs vhd2tar layer.vhd | tar -xO etc/passwd | cmp - /etc/passwd && echo the same",
        "the same",
    ),
    ("dpkg --verify opengcs && echo as packed", "as packed"),
    (
        "bash -c '. /usr/share/bash-completion/completions/opengcs && complete -p opengcs'",
        "_opengcs",
    ),
];

/// With a kernel in the data folder: the agent is found where the package has put it.
const INITRD: (&str, &str) = (
    "OPENGCS_DATA_DIR=/data opengcs initrd build",
    "/data/initrd.img",
);

/// Whether a clean root can be made here.
pub(super) fn possible() -> Result<()> {
    if !host::is_root() {
        bail!("making and entering another root takes root");
    }
    host::ensure(host::CLEAN_ROOT).context("mmdebstrap is not to be had")
}

/// Installs both packages into a fresh Debian 12 and uses them; what does not work is an error.
pub(super) fn try_packages(packages: &Packages) -> Result<()> {
    possible()?;
    let root = run::target_dir().join("clean-root");
    remove(&root)?;
    println!("making a clean Debian 12 in {}", root.display());
    run::run(
        tool("mmdebstrap")
            .args(["--quiet", "--variant=minbase", "--mode=root"])
            .args(["--include=man-db,busybox-static"])
            .arg("bookworm")
            .arg(&root),
    )
    .context("no clean Debian is to be had: the distribution's mirror must be within reach")?;
    let tried = install_and_use(&root, packages);
    remove(&root)?;
    tried?;
    println!("the packages work in a clean Debian 12");
    Ok(())
}

fn install_and_use(root: &Path, packages: &Packages) -> Result<()> {
    fs::copy(&packages.deb, root.join("tmp/opengcs.deb"))?;
    inside(root, "dpkg -i /tmp/opengcs.deb", "Setting up opengcs")?;
    let mut used = USED.to_vec();
    let kernel = guest::data_dir().join("bootx64.efi");
    if kernel.is_file() {
        fs::create_dir(root.join("data"))?;
        fs::copy(&kernel, root.join("data/bootx64.efi"))?;
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(guest::data_dir().join("modules"));
        run::output(copy.arg(root.join("data")))?;
        used.push(INITRD);
    } else {
        println!(
            "left out: the installed program builds an initrd (`cargo xtask guest` fetches a kernel)"
        );
    }
    for (script, expected) in &used {
        inside(root, script, expected)?;
    }
    inside(
        root,
        "dpkg -r opengcs && ! test -e /usr/lib/opengcs && echo gone",
        "gone",
    )?;

    // The tarball works from wherever it is unpacked.
    fs::copy(&packages.tarball, root.join("tmp/opengcs.tar.gz"))?;
    let unpack =
        "mkdir /opt/o && tar -C /opt/o --strip-components=1 -xzf /tmp/opengcs.tar.gz && ls /opt/o";
    inside(root, unpack, "lib")?;
    inside(root, "/opt/o/bin/opengcs --version", "opengcs ")?;
    if kernel.is_file() {
        fs::remove_file(root.join("data/initrd.img"))?;
        let build = INITRD
            .0
            .replace("opengcs initrd", "/opt/o/bin/opengcs initrd");
        inside(root, &build, INITRD.1)?;
    }
    Ok(())
}

/// Runs a script in the root; it must succeed and print `expected`.
fn inside(root: &Path, script: &str, expected: &str) -> Result<()> {
    // With a /proc of its own, which goes with the processes.
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--root"])
        .arg(root)
        .args(["/bin/sh", "-c", script])
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .context("cannot run unshare, of the package util-linux")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.contains(expected),
        "in a clean Debian `{script}` ended with {} and did not print {expected:?}:\n{said}",
        output.status
    );
    println!("   {script}");
    Ok(())
}

fn remove(root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    Ok(())
}
