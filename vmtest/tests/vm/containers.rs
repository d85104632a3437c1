//! Containers on an overlay of a layer and a scratch disk, by `crun` in the guest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use opengcs::{
    BootMode, Container, ContainerExit, ContainerSpec, ErrorKind, OverlaySpec, Process,
    ProcessSpec, RequestedMode, Stopped, UtilityVm,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::fixture::{
    config_with, error_of, in_full, nothing_stays_in, said, shared, test, with_runtime,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        with_runtime("containers::one_lives_from_create_to_delete", life),
        with_runtime("containers::how_it_ended_is_told", ends),
        with_runtime("containers::input_and_much_output_go_through", streams),
        with_runtime("containers::terminals_are_resized", terminals),
        with_runtime("containers::users_are_those_of_its_own_lists", users),
        with_runtime("containers::it_keeps_to_its_memory", constraints),
        with_runtime("containers::what_cannot_be_made_leaves_nothing", refusals),
        test("containers::they_run_by_runc_too", || {
            in_a_vm_of("OPENGCS_TEST_RUNC_INITRD", "lcow.initrd")
        }),
        test("containers::they_run_in_a_vm_from_a_boot_disk", || {
            in_a_vm_of("OPENGCS_TEST_VHDX", "lcow.vhdx")
        }),
        shared("containers::a_vm_without_a_runtime_says_so", without),
    ]
}

/// A root file system of its own in the VM, for one container.
struct Root {
    vm: Arc<UtilityVm>,
    id: String,
    files: TempDir,
}

impl Root {
    async fn new(vm: &Arc<UtilityVm>, id: &str) -> Result<Self> {
        let files = TempDir::new()?;
        let layer = files.path().join("layer.vhd");
        opengcs::tar_to_vhd(&layer, layer_tar()?.as_slice())?;
        let sandbox = files.path().join("sandbox.vhdx");
        opengcs::create_ext4_vhdx(&sandbox, opengcs::DEFAULT_VHDX_SIZE_GB, None)?;
        let root = Self {
            vm: Arc::clone(vm),
            id: id.to_owned(),
            files,
        };
        vm.hot_add_vhd(&layer, &format!("/run/layers/{id}"), true, true)
            .await?;
        vm.hot_add_vhd(&sandbox, &root.bundle(), false, true)
            .await?;
        vm.combine_layers(&root.overlay()).await?;
        Ok(root)
    }

    fn bundle(&self) -> String {
        format!("/run/gcs/c/{}", self.id)
    }

    fn overlay(&self) -> OverlaySpec {
        let bundle = self.bundle();
        OverlaySpec::new(format!("{bundle}/rootfs"))
            .layer(format!("/run/layers/{}", self.id))
            .scratch(format!("{bundle}/scratch"))
    }

    fn spec(&self, script: &str) -> ContainerSpec {
        ContainerSpec::new(&self.id, self.document(script))
    }

    fn document(&self, script: &str) -> Value {
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin", "TERM=xterm"],
                "cwd": "/"
            },
            "root": {"path": format!("{}/rootfs", self.bundle())},
            "hostname": "box",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}
            ],
            "linux": {
                "resources": {"memory": {"limit": 64 << 20}},
                "namespaces": [
                    {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                    {"type": "mount"}
                ]
            }
        })
    }

    async fn remove(self) -> Result<()> {
        let overlay = format!("{}/rootfs", self.bundle());
        self.vm.uncombine_layers(&overlay).await?;
        for file in ["sandbox.vhdx", "layer.vhd"] {
            self.vm.hot_remove_vhd(self.files.path().join(file)).await?;
        }
        Ok(())
    }
}

/// A layer with busybox and nothing else.
fn layer_tar() -> Result<Vec<u8>> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(Path::new)
        .find(|path| path.is_file())
        .context("this host has no busybox: run these tests with `cargo xtask test`")?;
    let program = std::fs::read(busybox)?;
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, mode: u32, content: &[u8]| -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        Ok(tar.append_data(&mut header, name, content)?)
    };
    add("bin/busybox", 0o755, &program)?;
    add(
        "etc/passwd",
        0o644,
        b"root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n",
    )?;
    add("etc/group", 0o644, b"root:x:0:\nstaff:x:50:web\n")?;
    for applet in [
        "sh",
        "cat",
        "id",
        "ps",
        "sleep",
        "stty",
        "hostname",
        "head",
        "kill",
        "touch",
        "ls",
        "dd",
        "echo",
        "tail",
        "sha256sum",
        "md5sum",
        "true",
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, PathBuf::from("bin").join(applet), "busybox")?;
    }
    for folder in ["proc/", "dev/", "sys/", "tmp/"] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        tar.append_data(&mut header, folder, std::io::empty())?;
    }
    Ok(tar.into_inner()?)
}

/// Everything that a process says, and its exit code.
async fn told(mut process: Process) -> Result<(u32, String)> {
    process.stdin = None;
    let mut text = String::new();
    let mut stdout = process.stdout.take().context("an output")?;
    stdout.read_to_string(&mut text).await?;
    if let Some(mut stderr) = process.stderr.take() {
        stderr.read_to_string(&mut text).await?;
    }
    Ok((process.wait().await?.code(), text))
}

async fn exec(container: &Container, script: &str) -> Result<(u32, String)> {
    let spec = ProcessSpec::new(["/bin/sh", "-c", script]).stdin(false);
    told(container.exec(spec).await?).await
}

const LIVES: &str = "trap 'echo got term; exit 42' TERM; echo started; hostname; \
                     while :; do sleep 0.1; done";

async fn life(vm: Arc<UtilityVm>) -> Result<()> {
    let root = Root::new(&vm, "life").await?;
    let container = vm.create_container(root.spec(LIVES)).await?;
    let error = error_of(vm.create_container(root.spec(LIVES)).await)?;
    ensure!(error.kind() == ErrorKind::AlreadyExists, "{error:?}");
    // It is made and does not run yet.
    ensure!(container.processes().await?.is_empty());
    ensure!(exec(&container, "true").await.is_err());

    let mut first = container.start().await?;
    let mut lines = BufReader::new(first.stdout.take().context("an output")?).lines();
    ensure!(lines.next_line().await?.as_deref() == Some("started"));
    ensure!(lines.next_line().await?.as_deref() == Some("box"));
    let error = error_of(container.start().await.map(drop))?;
    ensure!(error.kind() == ErrorKind::GuestRefused, "{error:?}");

    let (code, text) = exec(&container, "ps; id; echo to stderr >&2; exit 5").await?;
    ensure!(code == 5, "{code}: {text}");
    ensure!(
        text.contains("uid=0") && text.contains("to stderr"),
        "{text}"
    );
    // It has processes of its own and sees no others.
    ensure!(
        text.contains("sleep 0.1") && !text.contains("gcs"),
        "{text}"
    );
    let processes = container.processes().await?;
    ensure!(processes.contains(&first.id()), "{processes:?}");
    let used = container.statistics().await?.context("statistics")?;
    ensure!(used.memory.usage.limit == 64 << 20, "{used:?}");
    ensure!(
        used.pids.current >= 1 && used.cpu.usage.total > 0,
        "{used:?}"
    );

    let mut other = container.exec(["/bin/sleep", "1000"]).await?;
    other.kill().await?;
    ensure!(other.wait().await?.code() == 137);

    container.shut_down().await?;
    ensure!(first.wait().await?.code() == 42);
    ensure!(lines.next_line().await?.as_deref() == Some("got term"));
    ensure!(lines.next_line().await?.is_none());
    ensure!(container.wait().await? == ContainerExit::Graceful);
    let error = error_of(container.kill().await)?;
    ensure!(error.kind() == ErrorKind::NotFound, "{error:?}");
    ensure!(container.processes().await?.is_empty());
    ensure!(exec(&container, "true").await.is_err());
    container.delete().await?;
    root.remove().await?;
    let places = "/run/gcs/runtime/life /sys/fs/cgroup/containers/life";
    let left = said(&vm, &format!("ls -d {places} 2>/dev/null || echo none")).await?;
    ensure!(left.trim() == "none", "{left}");
    Ok(())
}

/// The whole life and each end of a container, and a terminal, in a VM that starts from the file that
/// `variable` names.
async fn in_a_vm_of(variable: &str, option: &str) -> Result<()> {
    let file = std::env::var(variable).with_context(|| {
        format!("{variable} is not set: run these tests with `cargo xtask test`")
    })?;
    let runtime = TempDir::new()?;
    let mut config = config_with(runtime.path(), &[&format!("{option}={file}")])?;
    config.requested_mode = RequestedMode::Auto;
    let vm = UtilityVm::start(config).await.map_err(in_full)?;
    let from_disk = option == "lcow.vhdx";
    ensure!((vm.boot_mode() == BootMode::Vhdx) == from_disk);
    let vm = Arc::new(vm);
    life(Arc::clone(&vm)).await?;
    ends(Arc::clone(&vm)).await?;
    terminals(Arc::clone(&vm)).await?;
    ensure!(vm.disks().is_empty());
    ensure!(vm.stop().await? == Stopped::Gracefully);
    drop(vm);
    nothing_stays_in(runtime.path()).await
}

async fn ends(vm: Arc<UtilityVm>) -> Result<()> {
    let root = Root::new(&vm, "ends").await?;
    for (script, kill, code, exit) in [
        ("exit 3", false, 3, ContainerExit::Unexpected),
        ("kill -9 $$", false, 137, ContainerExit::Unexpected),
        (
            "while :; do sleep 1; done",
            true,
            137,
            ContainerExit::Forced,
        ),
    ] {
        // The first process of a PID namespace takes no signal from within.
        let mut document = root.document(script);
        document["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}]);
        let spec = ContainerSpec::new("ends", document);
        let container = vm.create_container(spec).await?;
        let mut first = container.start().await?;
        if kill {
            container.kill().await?;
        }
        let status = first.wait().await?;
        ensure!(status.code() == code, "{script}: {status}");
        let told = container.wait().await?;
        ensure!(told == exit, "{script}: {told}");
        container.delete().await?;
    }
    // One that was never started is forgotten as well.
    let container = vm.create_container(root.spec("true")).await?;
    container.delete().await?;
    root.remove().await
}

async fn streams(vm: Arc<UtilityVm>) -> Result<()> {
    let root = Root::new(&vm, "streams").await?;
    let spec = root
        .spec("cat; echo end; echo errors >&2; exit 4")
        .stdin(true);
    let container = vm.create_container(spec).await?;
    let first = container.start().await?;
    let sent: Vec<u8> = (0..1_u32 << 20).flat_map(u32::to_le_bytes).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = first.run(sent.as_slice(), &mut out, &mut err).await?;
    ensure!(status.code() == 4, "{status}");
    ensure!(
        out.len() == sent.len() + 4 && out.starts_with(&sent),
        "{}",
        out.len()
    );
    ensure!(out.ends_with(b"end\n") && err == b"errors\n");
    container.wait().await?;
    container.delete().await?;
    root.remove().await
}

async fn terminals(vm: Arc<UtilityVm>) -> Result<()> {
    let root = Root::new(&vm, "terminals").await?;
    let mut document = root.document("stty size; read line; stty size; exit 6");
    document["process"]["terminal"] = json!(true);
    document["process"]["consoleSize"] = json!({"height": 30, "width": 90});
    let container = vm
        .create_container(ContainerSpec::new("terminals", document))
        .await?;
    let mut first = container.start().await?;
    let mut output = BufReader::new(first.stdout.take().context("an output")?);
    let mut line = String::new();
    output.read_line(&mut line).await?;
    ensure!(line.trim() == "30 90", "{line:?}");
    first.resize(43, 132).await?;
    // Another process has a terminal of its own meanwhile.
    let spec = ProcessSpec::new(["/bin/sh", "-c", "stty size; exit 7"])
        .terminal(true)
        .terminal_size(11, 22);
    let (code, text) = told(container.exec(spec).await?).await?;
    ensure!((code, text.trim()) == (7, "11 22"), "{code} {text:?}");
    first
        .stdin
        .as_mut()
        .context("an input")?
        .write_all(b"go\n")
        .await?;
    let mut rest = String::new();
    output.read_to_string(&mut rest).await?;
    ensure!(rest.contains("43 132"), "{rest:?}");
    ensure!(first.wait().await?.code() == 6);
    container.wait().await?;
    container.delete().await?;
    root.remove().await
}

async fn users(vm: Arc<UtilityVm>) -> Result<()> {
    let root = Root::new(&vm, "users").await?;
    let mut document = root.document("id; sleep 1000");
    document["process"]["user"] = json!({"username": "web"});
    let container = vm
        .create_container(ContainerSpec::new("users", document))
        .await?;
    let mut first = container.start().await?;
    let mut line = String::new();
    BufReader::new(first.stdout.take().context("an output")?)
        .read_line(&mut line)
        .await?;
    ensure!(line.contains("uid=33(web) gid=34"), "{line}");
    ensure!(line.contains("50(staff)"), "{line}");
    let spec = ProcessSpec::new(["id"]).user("7:staff").stdin(false);
    let (code, text) = told(container.exec(spec).await?).await?;
    ensure!(code == 0 && text.contains("uid=7 gid=50(staff)"), "{text}");
    let nobody = ProcessSpec::new(["id"]).user("no-such");
    let error = error_of(container.exec(nobody).await.map(drop))?;
    ensure!(error.report().contains("no-such"), "{error:?}");
    container.kill().await?;
    first.wait().await?;
    container.wait().await?;
    container.delete().await?;
    root.remove().await
}

async fn constraints(vm: Arc<UtilityVm>) -> Result<()> {
    let root = Root::new(&vm, "constraints").await?;
    let container = vm.create_container(root.spec("sleep 1000")).await?;
    let mut first = container.start().await?;
    container
        .update(json!({"memory": {"limit": 32 << 20}}))
        .await?;
    let used = container.statistics().await?.context("statistics")?;
    ensure!(used.memory.usage.limit == 32 << 20, "{used:?}");
    // One that takes more is killed by the kernel.
    let (code, text) = exec(&container, "exec tail -c 200m /dev/zero").await?;
    ensure!(code == 137, "{code}: {text}");
    container.kill().await?;
    first.wait().await?;
    container.wait().await?;
    container.delete().await?;
    root.remove().await
}

async fn refusals(vm: Arc<UtilityVm>) -> Result<()> {
    let root = Root::new(&vm, "refusals").await?;
    let mut odd = root.document("true");
    odd["root"]["path"] = json!("/no/such/root");
    let error = error_of(
        vm.create_container(ContainerSpec::new("refusals", odd))
            .await,
    )?;
    ensure!(error.kind() == ErrorKind::GuestRefused, "{error:?}");
    ensure!(
        error.report().contains("/no/such/root"),
        "{}",
        error.report()
    );
    for id in ["", "a/b", "../c"] {
        let error = error_of(vm.create_container(ContainerSpec::new(id, json!({}))).await)?;
        ensure!(error.kind() == ErrorKind::GuestRefused, "{error:?}");
    }
    // Its name is free, and a program that is not there is told.
    let mut missing = root.document("true");
    missing["process"]["args"] = json!(["/no/such/program"]);
    let made = vm
        .create_container(ContainerSpec::new("refusals", missing))
        .await;
    let error = match made {
        Err(error) => error,
        Ok(container) => {
            let error = error_of(container.start().await.map(drop))?;
            container.wait().await?;
            container.delete().await?;
            error
        }
    };
    ensure!(
        error.report().contains("/no/such/program"),
        "{}",
        error.report()
    );
    root.remove().await
}

async fn without(vm: Arc<UtilityVm>) -> Result<()> {
    let spec = ContainerSpec::new("without", json!({}));
    let error = error_of(vm.create_container(spec).await)?;
    ensure!(error.kind() == ErrorKind::Unsupported, "{error:?}");
    ensure!(error.to_string().contains("--runtime"), "{error}");
    Ok(())
}
