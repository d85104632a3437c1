//! What the tests stand on: one runtime, a VM that is shared, VMs of one's own, and small layers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Failed, Trial};
use opengcs::{Config, Environment, Error, Output, RequestedMode, UtilityVm};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vmtest::odd;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::new().expect("the machine has threads for a test"));

static SHARED: Mutex<BTreeMap<Kind, Shared>> = Mutex::new(BTreeMap::new());

/// What a shared VM has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Plain,
    /// An OCI runtime.
    Containers,
}

struct Shared {
    vm: Arc<UtilityVm>,
    /// Where the VM keeps its sockets and records; empty when it has stopped.
    runtime: TempDir,
}

/// A test that needs no VM, or starts its own.
pub(crate) fn test<F>(name: &str, body: impl Fn() -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<()>>,
{
    Trial::test(name, move || report(RUNTIME.block_on(body())))
}

/// A test in the VM that is shared. It must leave no disk and no process behind.
pub(crate) fn shared<F>(name: &str, body: impl Fn(Arc<UtilityVm>) -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<()>>,
{
    shared_by(Kind::Plain, name, body)
}

/// A test in the VM that is shared by those that run containers. It must leave no disk and no
/// container behind.
pub(crate) fn with_runtime<F>(
    name: &str,
    body: impl Fn(Arc<UtilityVm>) -> F + Send + 'static,
) -> Trial
where
    F: Future<Output = Result<()>>,
{
    shared_by(Kind::Containers, name, body)
}

fn shared_by<F>(
    kind: Kind,
    name: &str,
    body: impl Fn(Arc<UtilityVm>) -> F + Send + 'static,
) -> Trial
where
    F: Future<Output = Result<()>>,
{
    Trial::test(name, move || {
        report(shared_vm(kind).and_then(|vm| RUNTIME.block_on(body(vm))))
    })
}

fn report(result: Result<()>) -> Result<(), Failed> {
    result.map_err(|error| Failed::from(format!("{error:?}")))
}

/// The VM that is shared, started by whoever needs it first.
fn shared_vm(kind: Kind) -> Result<Arc<UtilityVm>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Shared { vm, .. }) = shared.get(&kind) {
        return Ok(Arc::clone(vm));
    }
    let runtime = TempDir::new()?;
    let config = match kind {
        Kind::Plain => config(runtime.path())?,
        Kind::Containers => {
            let initrd = std::env::var("OPENGCS_TEST_CONTAINERS_INITRD").context(
                "OPENGCS_TEST_CONTAINERS_INITRD is not set: run these tests with `cargo xtask test`",
            )?;
            config_with(runtime.path(), &[&format!("lcow.initrd={initrd}")])?
        }
    };
    let started = RUNTIME.block_on(UtilityVm::start(config));
    let vm = Arc::new(started.map_err(in_full)?);
    let kept = Arc::clone(&vm);
    shared.insert(kind, Shared { vm: kept, runtime });
    Ok(vm)
}

/// Stops the shared VMs that tests have started, and sees that nothing is left.
pub(crate) fn stop_shared_vms() -> Result<()> {
    let shared = std::mem::take(&mut *SHARED.lock().unwrap_or_else(PoisonError::into_inner));
    for Shared { vm, runtime } in shared.into_values() {
        ensure!(vm.disks().is_empty(), "a test left disks: {:?}", vm.disks());
        RUNTIME.block_on(vm.stop())?;
        drop(vm);
        nothing_in(runtime.path())?;
    }
    RUNTIME.block_on(crate::monitors::stop_shared())
}

/// Fails when `folder` has anything in it.
pub(crate) fn nothing_in(folder: &Path) -> Result<()> {
    let left: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// Fails when `folder` does not become empty: a VM that is dropped is cleared away behind its owner.
pub(crate) async fn nothing_stays_in(folder: &Path) -> Result<()> {
    for _ in 0..200 {
        if nothing_in(folder).is_ok() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    nothing_in(folder)
}

/// A configuration for the kernel and initrd that `cargo xtask test` has prepared; the VM's private
/// files are in `runtime`.
pub(crate) fn config(runtime: &Path) -> Result<Config> {
    config_with(runtime, &[])
}

/// The same with more options.
pub(crate) fn config_with(runtime: &Path, options: &[&str]) -> Result<Config> {
    let data = std::env::var_os("OPENGCS_DATA_DIR")
        .context("OPENGCS_DATA_DIR is not set: run these tests with `cargo xtask test`")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let environment = Environment::fixed([
        ("OPENGCS_DATA_DIR", data),
        ("PATH", path),
        ("XDG_RUNTIME_DIR", runtime.into()),
    ]);
    let options = ["lcow.timeout=120"].iter().chain(options);
    let mut config = Config::generate_default_with(options, &environment)?;
    config.requested_mode = RequestedMode::KernelInitrd;
    Ok(config)
}

/// A VM of one's own, with the folder of its private files.
pub(crate) async fn own_vm() -> Result<(UtilityVm, TempDir)> {
    let runtime = TempDir::new()?;
    let vm = UtilityVm::start(config(runtime.path())?)
        .await
        .map_err(in_full)?;
    Ok((vm, runtime))
}

/// An error with everything that is known of a VM that did not come up.
pub(crate) fn in_full(error: Error) -> anyhow::Error {
    let detail = error.detail().unwrap_or_default().to_owned();
    anyhow::Error::new(error).context(detail)
}

/// The error of something that must fail.
pub(crate) fn error_of<T>(result: opengcs::Result<T>) -> Result<Error> {
    match result {
        Ok(_) => bail!("it succeeded"),
        Err(error) => Ok(error),
    }
}

/// Runs a script in the guest's own shell.
pub(crate) async fn sh(vm: &UtilityVm, script: &str) -> Result<Output> {
    Ok(vm.output(["/bin/sh", "-c", script], 1 << 20).await?)
}

/// Runs a script that must succeed, and returns what it printed.
pub(crate) async fn said(vm: &UtilityVm, script: &str) -> Result<String> {
    let output = sh(vm, script).await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`{script}`: {}: {stderr}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// A small tar with one entry of each odd kind.
pub(crate) fn odd_tar() -> Result<Vec<u8>> {
    let mut tar = Vec::new();
    odd::write_odd_entries(&mut tar)?;
    Ok(tar)
}
