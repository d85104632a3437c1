//! Images of `mke2fs`, of all kinds that fit into kilobytes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::pieces::Pieces;
use crate::{Corpus, SEAL, run};

pub fn make(folder: &Path) {
    let corpus = Corpus::open("ext4");
    let source = folder.join("tree");
    fs::create_dir_all(source.join("many")).expect("a folder");
    for number in 0..24 {
        fs::write(
            source.join(format!("many/{number:02}{}", "n".repeat(70))),
            [],
        )
        .expect("a file");
    }
    for size in [20, 100, 1000, 20_000] {
        fs::write(source.join(format!("size-{size}")), vec![b'D'; size]).expect("a file");
    }
    symlink("short", source.join("fast")).expect("a link");
    symlink("D".repeat(200), source.join("slow")).expect("a link");
    let bits = folder.join("pieces");
    let piece = [[b'D'; 4096], [0; 4096]].concat();
    fs::write(&bits, piece.repeat(6)).expect("a file");
    let commands = folder.join("commands");
    let lines = format!(
        "ea_set size-20 user.short {}\nea_set size-20 user.long {}\nea_set size-100 user.b {}\n\
         mknod device c 5 1\nmknod pipe p\nwrite {} pieces\n",
        "v".repeat(20),
        "w".repeat(300),
        "w".repeat(200),
        bits.display()
    );
    fs::write(&commands, lines).expect("a file");
    for (name, flags, options) in [
        (
            "plain",
            0,
            "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,^resize_inode",
        ),
        (
            "sums",
            SEAL,
            "-t ext4 -b 1024 -O metadata_csum,64bit,^has_journal,^resize_inode",
        ),
        (
            "inline",
            0,
            "-t ext4 -b 1024 -O ^metadata_csum,inline_data,ea_inode,^has_journal,^resize_inode",
        ),
        (
            "inline-sums",
            SEAL,
            "-t ext4 -b 1024 -O metadata_csum,inline_data,ea_inode,metadata_csum_seed,^has_journal,^resize_inode",
        ),
        ("ext2", 0, "-t ext2 -b 1024 -O ^resize_inode,^dir_index"),
        (
            "ext3",
            0,
            "-t ext3 -b 1024 -I 128 -O ^has_journal,^resize_inode",
        ),
        (
            "meta-bg",
            0,
            "-t ext4 -b 1024 -O meta_bg,^metadata_csum,^has_journal,^resize_inode",
        ),
        (
            "large-blocks",
            0,
            "-t ext4 -b 4096 -O ^metadata_csum,^has_journal,^resize_inode",
        ),
        (
            "bigalloc",
            0,
            "-t ext4 -b 1024 -C 8192 -O bigalloc,^metadata_csum,^has_journal,^resize_inode",
        ),
        (
            "casefold",
            SEAL,
            "-t ext4 -b 1024 -O casefold,^has_journal,^resize_inode",
        ),
        (
            "quota",
            0,
            "-t ext4 -b 1024 -O quota,project,^metadata_csum,^has_journal,^resize_inode",
        ),
    ] {
        let image = folder.join(name);
        let (image, tree) = (
            image.to_str().expect("a name"),
            source.to_str().expect("a name"),
        );
        let mut arguments: Vec<&str> = vec!["-q", "-F", "-N", "64"];
        arguments.extend(options.split(' '));
        arguments.extend([
            "-d",
            tree,
            image,
            if name == "large-blocks" { "128" } else { "512" },
        ]);
        let _ = fs::remove_file(image);
        run("mke2fs", &arguments);
        run(
            "debugfs",
            &["-w", "-f", commands.to_str().expect("a name"), image],
        );
        let _ = Command::new("/usr/sbin/e2fsck")
            .args(["-fyD", image])
            .output();
        corpus.put(
            name,
            &Pieces::encode(flags, &fs::read(image).expect("an image")),
        );
    }
}
