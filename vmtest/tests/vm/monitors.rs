//! VMs that outlive the command, as users have them: one is shared by what leaves it as it was.

mod disks;
mod endings;
mod exec;
mod logs;
mod terminal;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::fixture::{nothing_in, test};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test(
            "monitors::exec_passes_streams_code_and_surroundings_through",
            exec::passes_through,
        ),
        test(
            "monitors::exec_tells_what_cannot_be_run_by_its_code",
            exec::cannot_be_run,
        ),
        test("monitors::exec_hands_signals_on", exec::hands_signals_on),
        test(
            "monitors::a_killed_client_takes_its_process_along_and_a_detached_one_does_not",
            exec::killed_client,
        ),
        test(
            "monitors::a_reader_that_has_enough_ends_the_process",
            exec::enough,
        ),
        test(
            "monitors::a_terminal_is_resized_interrupted_left_and_restored",
            terminal::terminal,
        ),
        test(
            "monitors::disks_come_and_go_by_file_and_by_place",
            disks::come_and_go,
        ),
        test(
            "monitors::logs_uses_and_a_bundle_are_told",
            logs::logs_uses_and_a_bundle,
        ),
        test(
            "monitors::of_two_starts_one_gets_the_name_and_its_death_is_told",
            endings::death,
        ),
        test(
            "monitors::a_killed_monitor_leaves_a_free_name",
            endings::killed,
        ),
        test(
            "monitors::an_interrupted_start_leaves_nothing",
            endings::interrupted,
        ),
    ]
}

/// What the shared VM is called.
pub(crate) const SHARED: &str = "shared";

static SHARED_VM: Mutex<Option<User>> = Mutex::const_new(None);

/// A user with a runtime folder of their own.
#[derive(Clone)]
pub(crate) struct User {
    folder: Arc<TempDir>,
}

/// What a command came to.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl User {
    pub(crate) fn new() -> Result<Self> {
        let folder = TempDir::new()?;
        for name in ["run", "state", "work"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        Ok(Self {
            folder: Arc::new(folder),
        })
    }

    /// The user of the VM that is shared, which is started by whoever needs it first.
    pub(crate) async fn of_shared_vm() -> Result<Self> {
        // Held while the VM starts: the others wait for it.
        let mut shared = SHARED_VM.lock().await;
        if let Some(user) = &*shared {
            return Ok(user.clone());
        }
        let user = Self::new()?;
        user.ok(&[&["vm", "start", SHARED], START].concat()).await?;
        *shared = Some(user.clone());
        Ok(user)
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Where the folders of VMs are.
    pub(crate) fn vms(&self) -> std::path::PathBuf {
        self.path("run/opengcs")
    }

    /// The command, in the user's work folder.
    pub(crate) fn opengcs<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Command> {
        let mut command = Command::new(program()?);
        command.args(arguments);
        self.surround(&mut command);
        Ok(command)
    }

    pub(crate) fn surround(&self, command: &mut Command) {
        command
            .current_dir(self.path("work"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env_remove("OPENGCS_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    pub(crate) async fn run<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Result<Run> {
        let mut child = self.opengcs(arguments)?.stdin(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("the command has an input")?;
        let feed = async {
            // A command that wants no input closes it.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let ((), output) = tokio::join!(feed, child.wait_with_output());
        let output = output?;
        Ok(Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
        })
    }

    /// A command that must do what it is told.
    pub(crate) async fn ok(&self, arguments: &[&str]) -> Result<String> {
        let run = self.run(arguments, b"").await?;
        ensure!(
            run.code == Some(0),
            "{arguments:?}: {:?}: {}",
            run.code,
            run.stderr
        );
        Ok(run.stdout)
    }

    /// A command that must fail with `code`, and say `words` in its first line.
    pub(crate) async fn fails(&self, arguments: &[&str], code: i32, words: &[&str]) -> Result<()> {
        let run = self.run(arguments, b"").await?;
        let line = run.stderr.lines().next().unwrap_or_default();
        let said = words.iter().all(|word| line.contains(word));
        ensure!(
            run.code == Some(code) && said,
            "{arguments:?}: {:?}: {}",
            run.code,
            run.stderr
        );
        Ok(())
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok(arguments).await?)?)
    }

    /// The number that `vm inspect` gives under `name`.
    pub(crate) async fn number(&self, vm: &str, name: &str) -> Result<u32> {
        let shown = self.json(&["vm", "inspect", vm, "--json"]).await?;
        let number = shown[name].as_u64().with_context(|| format!("{shown}"))?;
        Ok(u32::try_from(number)?)
    }

    /// Waits until the processes that `exec` has started in a VM are those of these numbers.
    pub(crate) async fn processes_become(&self, vm: &str, commands: &[&str]) -> Result<()> {
        let mut last = Value::Null;
        for _ in 0..200 {
            let shown = self.json(&["vm", "inspect", vm, "--json"]).await?;
            last = shown["processes"].clone();
            let all = last.as_array().context("no list of processes")?;
            let has = |command: &&str| all.iter().any(|one| one["command"] == **command);
            if commands.iter().all(has) {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        bail!("{commands:?} never came: {last}")
    }

    /// Waits until no process of this command is known any more.
    pub(crate) async fn process_goes(&self, vm: &str, command: &str) -> Result<()> {
        for _ in 0..400 {
            let shown = self.json(&["vm", "inspect", vm, "--json"]).await?;
            let all = shown["processes"]
                .as_array()
                .context("no list of processes")?;
            if all.iter().all(|one| one["command"] != command) {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        bail!("{command:?} still runs")
    }
}

/// How every VM here is started.
pub(crate) const START: &[&str] = &["--boot", "kernel", "-o", "lcow.timeout=120"];

fn program() -> Result<std::ffi::OsString> {
    std::env::var_os("OPENGCS_TEST_CLI")
        .context("OPENGCS_TEST_CLI is not set: run these tests with `cargo xtask test`")
}

/// Stops the shared VM, if a test has started it, and sees that nothing is left.
pub(crate) async fn stop_shared() -> Result<()> {
    let user = SHARED_VM.lock().await.take();
    let Some(user) = user else { return Ok(()) };
    let shown = user.json(&["vm", "inspect", SHARED, "--json"]).await?;
    ensure!(
        shown["disks"] == serde_json::json!([]),
        "a test left disks: {shown}"
    );
    ensure!(
        shown["processes"] == serde_json::json!([]),
        "a test left processes: {shown}"
    );
    let stopped = user.ok(&["vm", "stop", SHARED]).await?;
    ensure!(stopped.contains("in order"), "{stopped}");
    ensure!(user.ok(&["vm", "ls", "--json"]).await? == "[]\n");
    nothing_in(&user.vms())?;
    only_vms_in(&user.path("run")).await
}

/// Waits until nothing but the folder of VMs is in a runtime folder.
pub(crate) async fn only_vms_in(run: &Path) -> Result<()> {
    let mut left = Vec::new();
    for _ in 0..200 {
        let entries = std::fs::read_dir(run)?.collect::<std::io::Result<Vec<_>>>()?;
        left = entries.into_iter().map(|entry| entry.file_name()).collect();
        left.retain(|name| name != "opengcs");
        if left.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    bail!("left behind: {left:?}")
}
