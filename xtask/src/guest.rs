//! What a utility VM is booted from here: the agent, a kernel and an initrd, in `target/guest`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{dist, host, run};

const MUSL: &str = "x86_64-unknown-linux-musl";
const GLIBC: &str = "x86_64-unknown-linux-gnu";

/// The folder that stands for a user's data folder (`OPENGCS_DATA_DIR`).
pub(crate) fn data_dir() -> PathBuf {
    run::target_dir().join("guest")
}

/// The initrd with an OCI runtime in it, for VMs that run containers.
pub(crate) const CONTAINERS_INITRD: &str = "initrd-containers.img";

/// The same with the other runtime.
pub(crate) const RUNC_INITRD: &str = "initrd-runc.img";

/// The same as [`prepare`], and initrds with this host's `crun` and `runc` beside the one without.
pub(crate) fn prepare_with_runtime() -> Result<PathBuf> {
    let data = prepare()?;
    let agent = build_agent()?;
    for (runtime, initrd) in [("crun", CONTAINERS_INITRD), ("runc", RUNC_INITRD)] {
        run::run(
            std::process::Command::new(run::target_dir().join("debug/opengcs"))
                .args(["initrd", "build", "--runtime", runtime, "--agent"])
                .arg(&agent)
                .arg("--output")
                .arg(data.join(initrd))
                .env("OPENGCS_DATA_DIR", &data),
        )?;
    }
    Ok(data)
}

/// Builds or fetches everything that a VM boots from. Returns the data folder.
pub(crate) fn prepare() -> Result<PathBuf> {
    let data = data_dir();
    std::fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
    let agent = build_agent()?;
    run::run(run::cargo().args(["build", "--quiet", "--package", "opengcs-cli"]))?;
    let opengcs = run::target_dir().join("debug/opengcs");
    if !data.join("bootx64.efi").is_file() {
        host::ensure_package_lists()?;
        run::run(
            std::process::Command::new(&opengcs)
                .args(["kernel", "install"])
                .env("OPENGCS_DATA_DIR", &data),
        )?;
    }
    run::run(
        std::process::Command::new(&opengcs)
            .args(["initrd", "build", "--agent"])
            .arg(&agent)
            .env("OPENGCS_DATA_DIR", &data),
    )?;
    Ok(data)
}

/// Builds a disk that boots the same guest through UEFI. It lies beside the data folder's own files, or
/// every VM would boot from it.
pub(crate) fn boot_disk(data: &Path) -> Result<PathBuf> {
    let disk = data.join("boot").join("uvm.vhdx");
    run::run(
        std::process::Command::new(run::target_dir().join("debug/opengcs"))
            .args(["uvm", "build", "--runtime", "crun", "--agent"])
            .arg(agent_file(run::ensure_target(MUSL).is_ok()))
            .arg("--output")
            .arg(&disk)
            .env("OPENGCS_DATA_DIR", data),
    )?;
    Ok(disk)
}

fn agent_file(musl: bool) -> PathBuf {
    agent_file_in(&run::target_dir(), musl)
}

fn agent_file_in(target: &Path, musl: bool) -> PathBuf {
    let triple = if musl { MUSL } else { GLIBC };
    target.join(triple).join("agent/gcs")
}

/// The command line as the tests build it, and the agent.
pub(crate) fn programs() -> Result<dist::Programs> {
    run::run(run::cargo().args(["build", "--quiet", "--package", "opengcs-cli"]))?;
    Ok(dist::Programs {
        opengcs: run::target_dir().join("debug/opengcs"),
        agent: build_agent()?,
    })
}

/// Builds the agent as one static program and returns its path.
fn build_agent() -> Result<PathBuf> {
    build_agent_in(&run::target_dir(), "")
}

/// The same in another target folder, with more flags for the compiler.
///
/// The musl target is fetched when it is not there. Where it is not to be had, glibc is linked
/// statically instead, which is larger and does the same.
pub(crate) fn build_agent_in(target: &Path, flags: &str) -> Result<PathBuf> {
    let mut build = run::cargo();
    build.args(["build", "--quiet", "--package", "opengcs-agent"]);
    build.args(["--bin", "gcs", "--profile", "agent", "--target-dir"]);
    build.arg(target).arg("--target");
    let musl = run::ensure_target(MUSL).is_ok();
    let mut flags = flags.to_owned();
    if musl {
        build.arg(MUSL);
    } else {
        println!("the target {MUSL} is not to be had: linking the agent with static glibc");
        build.arg(GLIBC);
        flags.push_str(" -C target-feature=+crt-static");
    }
    if !flags.is_empty() {
        build.env("RUSTFLAGS", flags.trim());
    }
    run::run(&mut build)?;
    Ok(agent_file_in(target, musl))
}
