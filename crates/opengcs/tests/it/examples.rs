//! The examples that need no VM, judged by e2fsck and GNU tar.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use opengcs::layer::{Format, TarToDiskOptions, tar_to_disk};
use tempfile::TempDir;

use crate::outside;

/// `cargo test` builds the examples beside the tests' own folder; naming a single test program does not.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples")
        .join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.is_file(),
        "{} is not built: cargo build -p opengcs --examples",
        program.display()
    );
    program
}

fn run(name: &str, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(example(name));
    command.args(arguments).current_dir(folder);
    outside::run(&mut command).unwrap()
}

/// What a judge prints, which must be content.
fn judge(program: &str, arguments: &[&OsStr]) -> String {
    let output = outside::judge(program, arguments)
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// `e2fsck -fn` on a fixed VHD, whose footer it does not mind.
fn e2fsck(disk: &Path) {
    judge("e2fsck", &["-fn".as_ref(), disk.as_ref()]);
}

/// GNU tar, making one of what lies in `folder`.
fn tar(option: &str, tar: &Path, folder: &Path, names: &[&str]) {
    let mut arguments: Vec<&OsStr> = vec![
        option.as_ref(),
        tar.as_ref(),
        "-C".as_ref(),
        folder.as_ref(),
    ];
    arguments.extend(names.iter().map(OsStr::new));
    judge("tar", &arguments);
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
    let tree = here.join("tree");
    tar(
        "-czf",
        &here.join("layer.tar.gz"),
        &tree,
        &["folder", "large"],
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
    e2fsck(&here.join("layer.vhd"));
    let again = here.join("again");
    fs::create_dir(&again).unwrap();
    tar(
        "-xf",
        &here.join("back.tar"),
        &again,
        &["--exclude=./lost+found"],
    );
    judge("diff", &["-r".as_ref(), tree.as_ref(), again.as_ref()]);
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
    tar(
        "-cf",
        &here.join("disk.tar"),
        &here.join("tree"),
        &["upper", "work"],
    );
    let options = TarToDiskOptions {
        format: Format::Vhdx,
        ..TarToDiskOptions::default()
    };
    let input = fs::File::open(here.join("disk.tar")).unwrap();
    tar_to_disk(input, &here.join("sandbox.vhdx"), &options).unwrap();

    let output = run("export_sandbox", here, &[".", "changes.tar"]);
    assert!(output.status.success(), "{output:?}");
    let size = fs::metadata(here.join("changes.tar")).unwrap().len();
    assert_eq!(said(&output), format!("changes.tar: {size} bytes\n"));
    let changes = here.join("changes.tar");
    let list = || judge("tar", &["-tf".as_ref(), changes.as_ref()]);
    let listed = list();
    assert_eq!(listed, "./\nfolder/\nfolder/.wh.gone\nfolder/new\n");

    let again = run("export_sandbox", here, &[".", "changes.tar"]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(said(&again).contains("AlreadyExists"), "{again:?}");
    assert_eq!(list(), listed);
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
    let tree = here.join("tree");
    tar("-cf", &here.join("layer.tar"), &tree, &["folder/hello"]);
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
    let disk = here.join("layer.vhd");
    e2fsck(&disk);
    let sum = judge("sha256sum", &[disk.as_ref()]);
    let receipt = fs::read_to_string(here.join("layer.json")).unwrap();
    assert!(
        receipt.contains(sum.split(' ').next().unwrap()),
        "{receipt}"
    );

    fs::write(here.join("tree/next"), "a layer above\n").unwrap();
    fs::create_dir(here.join("tree/above")).unwrap();
    fs::write(here.join("tree/above/.wh.nothing"), "").unwrap();
    tar("-cf", &here.join("next.tar"), &tree, &["next", "above"]);
    let output = run("squash_layers", here, &["all.vhd", "layer.vhd", "next.tar"]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    // `folder`, `folder/hello`, `next` and `above`.
    assert!(text.contains("4 entries"), "{text}");
    e2fsck(&here.join("all.vhd"));
}
