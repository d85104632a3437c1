//! VHDs and VHDXs: of qemu-img, of ours, and what is left of ours when the writer dies.

use std::fs;
use std::path::Path;

use opengcs_vhd::testing::MemoryFile;
use opengcs_vhd::{Access, Disk, DiskOptions, Format, Guid, Storage};
use positioned_io::{Size, WriteAt};

use crate::pieces::Pieces;
use crate::{Corpus, SEAL, run};

pub fn make(folder: &Path) {
    const ID: Guid = Guid::from_bytes([3; 16]);
    let (vhd, vhdx) = (Corpus::open("vhd"), Corpus::open("vhdx"));
    let all = |file: &MemoryFile| {
        let length = file.size().expect("memory").expect("a size");
        file.bytes(0, usize::try_from(length).expect("short"))
    };
    let fixed = DiskOptions::new(Format::FixedVhd, Some(1 << 20), ID);
    let mut disk = Disk::create(MemoryFile::new(), &fixed).expect("good options");
    disk.write_all_at(4096, b"hello").expect("memory");
    vhd.put(
        "fixed",
        &Pieces::encode(SEAL, &all(&disk.finish().expect("memory"))),
    );

    let raw = folder.join("raw");
    let mut content = vec![0; 6 << 20];
    content[100..200].fill(1);
    content[(3 << 20) + 512..(3 << 20) + 9000].fill(2);
    fs::write(&raw, content).expect("a file");
    for (corpus, name, format, options) in [
        (&vhd, "qemu-dynamic", "vpc", "subformat=dynamic"),
        (&vhd, "qemu-fixed", "vpc", "subformat=fixed"),
        (
            &vhdx,
            "qemu-dynamic",
            "vhdx",
            "subformat=dynamic,block_size=1M,log_size=1M",
        ),
        (
            &vhdx,
            "qemu-fixed",
            "vhdx",
            "subformat=fixed,block_size=1M,log_size=1M",
        ),
    ] {
        let out = folder.join("out");
        let (raw, out) = (raw.to_str().expect("a name"), out.to_str().expect("a name"));
        run(
            "qemu-img",
            &[
                "convert", "-f", "raw", "-O", format, "-o", options, raw, out,
            ],
        );
        corpus.put(
            name,
            &Pieces::encode(SEAL, &fs::read(out).expect("an image")),
        );
    }

    let options = DiskOptions::new(Format::Vhdx, Some(20 << 30), ID);
    let disk = Disk::create(MemoryFile::new(), &options).expect("good options");
    let file = disk.finish().expect("memory");
    vhdx.put("empty", &Pieces::encode(SEAL, &all(&file)));
    let session = Guid::from_bytes([9; 16]);
    let mut disk = Disk::open(file.clone(), Access::ReadWrite { session }).expect("a good disk");
    for block in 0..3 {
        disk.write_all_at(block << 30, &[3; 5000]).expect("memory");
        disk.flush().expect("memory");
    }
    // The writer died here: the log says the rest.
    vhdx.put("dirty", &Pieces::encode(SEAL, &all(&file)));
    vhdx.put("dirty-as-it-is", &Pieces::encode(0, &all(&file)));
    for count in (1..file.operations()).step_by(4) {
        let left = file.crashes_after(count);
        let left = left.last().expect("at least what was durable");
        vhdx.put(&format!("crash-{count}"), &Pieces::encode(SEAL, &all(left)));
    }
    let raw = fs::read(folder.join("out")).expect("an image");
    vhdx.put("cut", &Pieces::encode(SEAL, &raw[..raw.len() / 2]));
}
