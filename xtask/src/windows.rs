//! The host side for Windows: cross-built with mingw, looked at by clippy, and its tests run by wine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{host, run};

const TARGET: &str = "x86_64-pc-windows-gnu";
const COMPILER: &str = "x86_64-w64-mingw32-gcc";

/// The crates that run on Windows; the agent is Linux's, and `vmtest` boots VMs on the host.
const CRATES: &[&str] = &[
    "opengcs-ext4",
    "opengcs-vhd",
    "opengcs-bridge",
    "opengcs-layer",
    "opengcs-machine",
    "opengcs",
    "opengcs-monitor",
    "opengcs-cli",
];

/// Those whose integration tests wine runs. A monitor has none: it stands on sockets of Unix.
const INTEGRATION: &[&str] = &[
    "opengcs-ext4",
    "opengcs-vhd",
    "opengcs-bridge",
    "opengcs-layer",
    "opengcs-machine",
    "opengcs",
    "opengcs-cli",
];

/// The library's examples, which its tests run.
const EXAMPLES: &[&str] = &[
    "convert_layer",
    "export_sandbox",
    "plan_and_verify",
    "run_program",
    "scratch_and_overlay",
    "squash_layers",
];

/// These tests start programs, under wine and beside it, and each of those is wine's one server's to serve,
/// however many processors there are.
const FEW_AT_ONCE: &[&str] = &["--test-threads=2"];

/// Debian keeps wine out of `PATH` when only its 64-bit half is installed.
const WINE: &[&str] = &["/usr/lib/wine/wine64", "/usr/bin/wine64"];

/// Clippy with `-Dwarnings` on the host side.
pub(crate) fn check() -> Result<()> {
    ensure_compiler()?;
    let mut clippy = run::cargo();
    clippy.args(["clippy", "--all-targets", "--target", TARGET]);
    run::run(packages(&mut clippy, CRATES).args(["--", "-Dwarnings"]))
}

/// What makes the host side's tests for Windows, in this order.
pub(crate) struct Lane {
    /// Wine's server, which stays between one test program and the next: a program that starts while its
    /// server is about to go fails.
    _server: Option<Server>,
    /// Builds what no `cargo test` of some tests does: the double of Hyper-V's library, which is an example,
    /// and the library's examples.
    pub(crate) examples: Command,
    /// The `cargo test`s that wine runs, and what they are told beside the filter.
    pub(crate) tests: [(Command, &'static [&'static str]); 2],
}

/// The host side's tests for Windows, where wine can run them.
pub(crate) fn lane() -> Result<Lane> {
    ensure_compiler()?;
    let wine = ensure_wine()?;
    let prefix = prefix(&wine)?;
    let test = |kinds: &[&str], crates: &[&str]| {
        let mut test = run::cargo();
        test.args(["test", "--no-fail-fast", "--target", TARGET]);
        packages(test.args(kinds), crates);
        test.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", &wine);
        test.env("WINEPREFIX", &prefix);
        test.env("WINEDEBUG", "-all");
        test
    };
    let mut examples = run::cargo();
    examples.args(["build", "--quiet", "--target", TARGET]);
    packages(&mut examples, &["opengcs-machine", "opengcs"]);
    for name in EXAMPLES.iter().chain(&["computecore"]) {
        examples.args(["--example", name]);
    }
    Ok(Lane {
        _server: Server::start(&wine, &prefix)?,
        examples,
        tests: [
            (test(&["--lib", "--bins"], CRATES), &[]),
            (test(&["--test", "it"], INTEGRATION), FEW_AT_ONCE),
        ],
    })
}

/// Ended when it is dropped; by itself, when there was no program for as long as it takes to build the next.
struct Server(Command);

impl Server {
    /// Nothing where the server is not beside wine itself.
    fn start(wine: &Path, prefix: &Path) -> Result<Option<Self>> {
        let program = wine.with_file_name("wineserver64");
        if !program.is_file() {
            return Ok(None);
        }
        let server = |argument: &str| {
            let mut server = Command::new(&program);
            server.arg(argument).env("WINEPREFIX", prefix);
            server
        };
        // The one that made the folder, or served an earlier run, may be here still; two there cannot be.
        let _ = server("--kill").status();
        run::run(&mut server("--persistent=600"))?;
        Ok(Some(Self(server("--kill"))))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.status();
    }
}

fn packages<'a>(command: &'a mut Command, crates: &[&str]) -> &'a mut Command {
    for name in crates {
        command.args(["--package", name]);
    }
    command
}

fn ensure_compiler() -> Result<()> {
    run::ensure_target(TARGET)?;
    host::ensure(host::WINDOWS)
}

fn ensure_wine() -> Result<PathBuf> {
    let find = || WINE.iter().map(PathBuf::from).find(|path| path.is_file());
    if find().is_none() {
        host::install(&["wine64"])?;
    }
    find().with_context(|| format!("wine64 is installed and in none of {}", WINE.join(", ")))
}

/// The folder that wine takes for a Windows machine, with the library that wine 8 lacks in it.
fn prefix(wine: &Path) -> Result<PathBuf> {
    let prefix = run::target_dir().join("wine");
    let system = prefix.join("drive_c/windows/system32");
    std::fs::create_dir_all(&prefix).with_context(|| format!("cannot create {prefix:?}"))?;
    if !system.is_dir() {
        // Neither a browser nor .NET is asked for: the tests need none.
        let made = Command::new(wine)
            .args(["wineboot", "--init"])
            .env("WINEPREFIX", &prefix)
            .env("WINEDEBUG", "-all")
            .env("WINEDLLOVERRIDES", "mscoree=;mshtml=")
            .env("DISPLAY", "")
            .stdin(Stdio::null())
            .status();
        if !made.is_ok_and(|status| status.success()) || !system.is_dir() {
            bail!(
                "wine cannot make a Windows of its own in {}",
                prefix.display()
            );
        }
    }
    let library = system.join("bcryptprimitives.dll");
    if !library.is_file() {
        let source = run::root().join("xtask/windows/bcryptprimitives.c");
        let mut compile = Command::new(COMPILER);
        compile.args(["-shared", "-Os", "-s", "-o"]).arg(&library);
        run::run(compile.arg(&source).arg("-ladvapi32"))?;
    }
    Ok(prefix)
}
