//! The examples that need no VM, judged by e2fsck and GNU tar.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use opengcs::layer::{Format, TarToDiskOptions, tar_to_disk};
use tempfile::TempDir;

/// `cargo test` builds the examples beside the tests' own folder; naming a single test program does not.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples")
        .join(name);
    assert!(
        program.is_file(),
        "{} is not built: cargo build -p opengcs --examples",
        program.display()
    );
    program
}

fn run(name: &str, folder: &Path, arguments: &[&str]) -> Output {
    Command::new(example(name))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// What a judge prints, which must be content.
fn judge(program: &str, folder: &Path, arguments: &[&str]) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_layer_becomes_a_clean_disk_and_the_same_tar_again() {
    let place = TempDir::new().unwrap();
    let here = place.path();
    fs::create_dir_all(here.join("tree/folder")).unwrap();
    fs::write(here.join("tree/folder/hello"), "hello, layer\n").unwrap();
    fs::write(here.join("tree/large"), vec![7; 700_000]).unwrap();
    judge(
        "tar",
        here,
        &["-C", "tree", "-czf", "layer.tar.gz", "folder", "large"],
    );

    let output = run(
        "convert_layer",
        here,
        &["layer.tar.gz", "layer.vhd", "back.tar"],
    );
    assert!(output.status.success(), "{output:?}");
    let size = fs::metadata(here.join("layer.vhd")).unwrap().len();
    let back = fs::metadata(here.join("back.tar")).unwrap().len();
    assert_eq!(
        said(&output),
        format!("layer.vhd: {size} bytes\nback.tar: {back} bytes\n")
    );
    judge("e2fsck", here, &["-fn", "layer.vhd"]);
    fs::create_dir(here.join("again")).unwrap();
    judge(
        "tar",
        here,
        &["-C", "again", "--exclude=./lost+found", "-xf", "back.tar"],
    );
    judge("diff", here, &["-r", "tree", "again"]);
}

#[test]
fn a_layer_that_is_cut_leaves_no_disk() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("cut.tar"), [b'x'; 700]).unwrap();
    let output = run(
        "convert_layer",
        place.path(),
        &["cut.tar", "layer.vhd", "back.tar"],
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        said(&output).contains("cannot turn the tar into a VHD"),
        "{output:?}"
    );
    let left: Vec<_> = fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["cut.tar"]);
}

#[test]
fn a_sandbox_is_exported_with_whiteouts_and_never_over_a_file() {
    let place = TempDir::new().unwrap();
    let here = place.path();
    // A sandbox as a VM leaves it: what was changed is in `upper`.
    fs::create_dir_all(here.join("tree/upper/folder")).unwrap();
    fs::create_dir_all(here.join("tree/work")).unwrap();
    fs::write(here.join("tree/upper/folder/new"), "new\n").unwrap();
    fs::write(here.join("tree/upper/folder/.wh.gone"), "").unwrap();
    judge(
        "tar",
        here,
        &["-C", "tree", "-cf", "disk.tar", "upper", "work"],
    );
    let options = TarToDiskOptions {
        format: Format::Vhdx,
        ..TarToDiskOptions::default()
    };
    let tar = fs::File::open(here.join("disk.tar")).unwrap();
    tar_to_disk(tar, &here.join("sandbox.vhdx"), &options).unwrap();

    let output = run("export_sandbox", here, &[".", "changes.tar"]);
    assert!(output.status.success(), "{output:?}");
    let size = fs::metadata(here.join("changes.tar")).unwrap().len();
    assert_eq!(said(&output), format!("changes.tar: {size} bytes\n"));
    let listed = judge("tar", here, &["-tf", "changes.tar"]);
    assert_eq!(listed, "./\nfolder/\nfolder/.wh.gone\nfolder/new\n");

    let again = run("export_sandbox", here, &[".", "changes.tar"]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(said(&again).contains("AlreadyExists"), "{again:?}");
    assert_eq!(judge("tar", here, &["-tf", "changes.tar"]), listed);
}

#[test]
fn examples_tell_their_usage() {
    let place = TempDir::new().unwrap();
    for name in [
        "convert_layer",
        "export_sandbox",
        "scratch_and_overlay",
        "run_program",
    ] {
        let output = run(name, place.path(), &[]);
        assert!(!output.status.success(), "{name}");
        assert!(
            said(&output).contains(&format!("usage: {name}")),
            "{output:?}"
        );
    }
}

#[test]
fn a_tar_is_looked_through_and_its_disk_verified() {
    let place = TempDir::new().unwrap();
    let here = place.path();
    fs::create_dir_all(here.join("tree/folder")).unwrap();
    fs::write(here.join("tree/folder/hello"), "hello, layer\n").unwrap();
    judge(
        "tar",
        here,
        &["cf", "layer.tar", "-C", "tree", "folder/hello"],
    );
    let output = run(
        "plan_and_verify",
        here,
        &["layer.tar", "layer.vhd", "layer.json"],
    );
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    for line in [
        "\"folder\": it has no entry of its own",
        "layer.vhd: 0 differences",
    ] {
        assert!(text.contains(line), "{text}");
    }
    judge("e2fsck", here, &["-fn", "layer.vhd"]);
    let sum = judge("sha256sum", here, &["layer.vhd"]);
    let receipt = fs::read_to_string(here.join("layer.json")).unwrap();
    assert!(
        receipt.contains(sum.split(' ').next().unwrap()),
        "{receipt}"
    );

    fs::write(here.join("tree/next"), "a layer above\n").unwrap();
    fs::create_dir(here.join("tree/above")).unwrap();
    fs::write(here.join("tree/above/.wh.nothing"), "").unwrap();
    judge(
        "tar",
        here,
        &["cf", "next.tar", "-C", "tree", "next", "above"],
    );
    let output = run("squash_layers", here, &["all.vhd", "layer.vhd", "next.tar"]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    // `folder`, `folder/hello`, `next` and `above`.
    assert!(text.contains("4 entries"), "{text}");
    judge("e2fsck", here, &["-fn", "all.vhd"]);
}
