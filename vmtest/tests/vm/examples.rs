//! The library's examples, as programs that somebody runs one after the other.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use vmtest::tree::Tree;

use crate::fixture::{nothing_in, test};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test(
            "examples::a_program_gets_the_streams_and_gives_its_code",
            a_program,
        ),
        test(
            "examples::what_changes_a_layer_is_in_the_sandbox_and_its_export",
            a_changed_layer,
        ),
    ]
}

/// Runs an example in `folder`; the VM it starts must leave nothing behind.
async fn example<S: AsRef<OsStr>>(
    name: &str,
    folder: &Path,
    arguments: &[S],
    input: &[u8],
) -> Result<Output> {
    let tests = std::env::current_exe()?;
    let programs = tests.ancestors().nth(2).context("no target folder")?;
    let program = programs.join("examples").join(name);
    ensure!(
        program.is_file(),
        "{} is not built: cargo build -p opengcs --examples",
        program.display()
    );
    let runtime = TempDir::new()?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("XDG_RUNTIME_DIR", runtime.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("the example has an input")?;
    stdin.write_all(input).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    nothing_in(runtime.path())?;
    Ok(output)
}

async fn a_program() -> Result<()> {
    let folder = TempDir::new()?;
    let words = ["sh", "-c", "tr a-z A-Z; echo aside >&2; exit 7"];
    let output = example("run_program", folder.path(), &words, b"through\n").await?;
    ensure!(output.status.code() == Some(7), "{output:?}");
    ensure!(output.stdout == b"THROUGH\n", "{output:?}");
    ensure!(output.stderr == b"aside\n", "{output:?}");

    let words = ["/no/such/program"];
    let output = example("run_program", folder.path(), &words, b"").await?;
    ensure!(output.status.code() == Some(125), "{output:?}");
    let said = String::from_utf8(output.stderr)?;
    ensure!(said.contains("/no/such/program"), "{said}");
    Ok(())
}

async fn a_changed_layer() -> Result<()> {
    let folder = TempDir::new()?;
    let here = folder.path();
    std::fs::write(here.join("layer.tar"), shell_layer()?)?;
    let ran = |output: Output| {
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let words = ["layer.tar", "layer.vhd", "back.tar"];
    ran(example("convert_layer", here, &words, b"").await?)?;

    let script = "echo new > /etc/new && rm /etc/old && cat /etc/new && ls /etc";
    std::fs::create_dir(here.join("box"))?;
    let words = ["layer.vhd", "box", "/bin/sh", "-c", script];
    let said = ran(example("scratch_and_overlay", here, &words, b"").await?)?;
    ensure!(said == "new\nnew\n", "{said}");

    ran(example("export_sandbox", here, &["box", "changes.tar"], b"").await?)?;
    let changes = Tree::from_tar(std::fs::File::open(here.join("changes.tar"))?)?;
    let paths: Vec<String> = changes.paths().collect();
    ensure!(changes.at("etc/new").is_some(), "{paths:?}");
    ensure!(changes.at("etc/.wh.old").is_some(), "{paths:?}");
    let layer = Tree::from_tar(opengcs::vhd_to_tar(here.join("layer.vhd"), false, None)?)?;
    ensure!(layer.at("etc/old").is_some() && layer.at("etc/new").is_none());
    Ok(())
}

/// The host's static busybox as a root file system.
fn shell_layer() -> Result<Vec<u8>> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find_map(|path| std::fs::read(path).ok())
        .context("the package busybox-static is needed")?;
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind, mode, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(u64::try_from(content.len())?);
        Ok::<_, anyhow::Error>(tar.append_data(&mut header, name, content)?)
    };
    add("bin/", tar::EntryType::Directory, 0o755, b"")?;
    add("bin/busybox", tar::EntryType::Regular, 0o755, &busybox)?;
    add("etc/", tar::EntryType::Directory, 0o755, b"")?;
    add("etc/old", tar::EntryType::Regular, 0o644, b"old\n")?;
    for name in ["sh", "cat", "ls", "rm"] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox")?;
    }
    Ok(tar.into_inner()?)
}
