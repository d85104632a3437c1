//! Converts a tar to a disk file, or a disk file to a tar: `convert to-disk|to-tar INPUT OUTPUT`.

#![allow(clippy::print_stderr, reason = "an example talks to a person")]

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use opengcs_layer::{DiskToTarOptions, TarToDiskOptions, disk_to_tar, tar_to_disk};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, what, input, output] = arguments.as_slice() else {
        return Err("usage: convert to-disk|to-tar INPUT OUTPUT".into());
    };
    let start = Instant::now();
    let (entries, bytes) = match what.as_str() {
        "to-disk" => {
            let options = TarToDiskOptions {
                sync: false,
                ..TarToDiskOptions::default()
            };
            let done = tar_to_disk(File::open(input)?, Path::new(output), &options)?;
            (done.entries, done.tar_bytes)
        }
        "to-tar" => {
            let options = DiskToTarOptions::default();
            let done = disk_to_tar(Path::new(input), File::create(output)?, &options)?;
            (done.entries, done.tar_bytes)
        }
        other => return Err(format!("{other}: to-disk or to-tar").into()),
    };
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{entries} entries, {bytes} bytes of tar in {seconds:.3} s");
    Ok(())
}
