//! Makes the corpora anew: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`.
//!
//! Needs e2fsprogs, qemu-img, GNU tar and bsdtar. What fuzzing has added is not touched: seeds are
//! named `seed-…`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

mod bridge;
mod disks;
mod ext4;
#[path = "../../../crates/layer/tests/it/forge.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod forge;
mod journal;
#[path = "../../entries/pieces.rs"]
mod pieces;
mod tars;
mod vsock;

const SEAL: u8 = 1;

struct Corpus(PathBuf);

impl Corpus {
    fn open(target: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target);
        fs::create_dir_all(&folder).expect("a folder for the corpus");
        Self(folder)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        println!("{:>7} {}/{name}", bytes.len(), self.0.display());
        fs::write(self.0.join(format!("seed-{name}")), bytes).expect("room for a seed");
    }

    fn put_tar(&self, name: &str, flags: u8, tar: &[u8]) {
        self.put(name, &[&[flags], tar].concat());
    }
}

fn run(program: &str, arguments: &[&str]) {
    let path = "/usr/sbin:/sbin:/usr/bin:/bin";
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    ext4::make(folder.path());
    journal::make();
    disks::make(folder.path());
    tars::make(folder.path());
    bridge::make();
    vsock::make();
}
