//! A layer becomes a disk file, and a tar again: `convert_layer LAYER.tar DISK.vhd BACK.tar`.
//!
//! No VM, no root, no loop device. The input may be packed with gzip, zstd or xz.

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::fs::File;
use std::io::{self, Write as _};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tar, disk, back] = arguments.as_slice() else {
        return Err("usage: convert_layer LAYER.tar DISK.vhd BACK.tar".into());
    };

    // Any reader will do: a file, a socket, the response of a registry. The disk file appears under its
    // name when it is whole; a tar that is cut or corrupt leaves nothing behind.
    let size = opengcs::tar_to_vhd(disk, File::open(tar)?)?;
    println!("{disk}: {size} bytes");

    // The other way a failure is an error of the read, never a clean end.
    let mut reader = opengcs::vhd_to_tar(disk, false, Some(size))?;
    let mut file = File::create_new(back)?;
    let copied = io::copy(&mut reader, &mut file)?;
    file.flush()?;
    println!("{back}: {copied} bytes");
    Ok(())
}
