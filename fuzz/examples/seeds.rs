//! Makes the corpora anew: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`.
//!
//! Needs e2fsprogs, qemu-img, GNU tar and bsdtar. What fuzzing has added is not touched: seeds are
//! named `seed-…`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use opengcs_bridge::{host, message::Request};
use opengcs_vhd::testing::MemoryFile;
use opengcs_vhd::{Access, Disk, DiskOptions, Format, Guid, Storage};
use positioned_io::{Size, WriteAt};

#[path = "../../crates/layer/tests/it/forge.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod forge;
#[path = "../entries/pieces.rs"]
mod pieces;

use forge::{Header, Tar, base256, gnu_sparse_tail};
use pieces::Pieces;

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
    ext4(folder.path());
    journal();
    disks(folder.path());
    tars(folder.path());
    bridge();
    vsock();
}

fn ext4(folder: &Path) {
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

/// Programs as `entries/journal.rs` reads them: flags, start, first number, and steps.
fn journal() {
    let corpus = Corpus::open("journal");
    // Write eight, commit; write some of them again and revoke others; commit; one not committed.
    let steps = [
        &[0x70_u8, 0, 1, 2, 3, 4, 5, 6, 7, 4][..],
        &[0x30, 1, 2, 3, 3, 0x13, 4, 5, 4],
        &[0x10, 4, 9, 0x03, 9, 4],
        &[0x20, 9, 10, 11, 0x00, 9, 5, 0x50, 20, 21, 22, 23, 24, 25],
    ]
    .concat();
    for (name, flags) in [
        ("none", 0),
        ("wide", 4),
        ("v2", 2),
        ("v2-wide", 6),
        ("v3", 3),
        ("v3-wide", 7),
    ] {
        corpus.put(name, &[&[flags, 0, 5], &steps[..]].concat());
        // The same at the end of the circle and of the numbers.
        corpus.put(
            &format!("{name}-round"),
            &[&[flags, 253, 0], &steps[..]].concat(),
        );
    }
    for (name, flags) in [("damaged", 3), ("damaged-plain", 0)] {
        let damage = [0x16, 0x48, 0, 0xff, 0x06, 0x40, 0x01, 8];
        corpus.put(name, &[&[flags, 0, 5], &steps[..], &damage].concat());
    }
    corpus.put(
        "own-blocks",
        &[&[7, 0, 5, 0x37, 1, 2, 3, 4, 4], &steps[..]].concat(),
    );
    corpus.put("empty", &[3, 0, 5]);
}

fn disks(folder: &Path) {
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

fn tars(folder: &Path) {
    let corpus = Corpus::open("tar");
    let source = folder.join("small");
    fs::create_dir_all(source.join("d/e")).expect("a folder");
    fs::write(source.join("d/a"), "content").expect("a file");
    fs::hard_link(source.join("d/a"), source.join("d/e/b")).expect("a link");
    symlink("../a", source.join("d/e/s")).expect("a link");
    fs::write(source.join("d").join("l".repeat(120)), "long").expect("a file");
    let mut sparse = fs::File::create(source.join("d/sparse")).expect("a file");
    sparse.set_len(300_000).expect("a hole");
    sparse.write_all_at(200_000, b"data").expect("data");
    let (tree, out) = (source.to_str().expect("a name"), folder.join("out.tar"));
    let out = out.to_str().expect("a name");
    for (name, program, options) in [
        ("gnu", "tar", "--format=gnu -S -b1"),
        ("oldgnu", "tar", "--format=oldgnu -S -b1"),
        (
            "ustar",
            "tar",
            "--format=ustar -b1 --exclude=sparse --exclude=l*",
        ),
        ("v7", "tar", "--format=v7 -b1 --exclude=sparse --exclude=l*"),
        (
            "pax-0.0",
            "tar",
            "--format=posix -S --sparse-version=0.0 -b1",
        ),
        (
            "pax-0.1",
            "tar",
            "--format=posix -S --sparse-version=0.1 -b1",
        ),
        (
            "pax-1.0",
            "tar",
            "--format=posix -S --sparse-version=1.0 -b1",
        ),
        ("bsdtar", "bsdtar", "--format=pax -b1"),
    ] {
        let mut arguments: Vec<&str> = options.split(' ').collect();
        arguments.extend(["-C", tree, "-cf", out, "d"]);
        run(program, &arguments);
        corpus.put_tar(name, SEAL, &fs::read(out).expect("a tar"));
    }
    let all = |kind: u8, value: i128| Header {
        uid: base256(value, 8),
        size: base256(2, 12),
        mtime: base256(-value, 12),
        ..Header::new("b", kind, 2)
    };
    let forged: [(&str, u8, Tar); 14] = [
        (
            "replace",
            SEAL,
            Tar::new()
                .dir("a")
                .file("a/b", "1")
                .file("a", "2")
                .symlink("a", "b")
                .dir("a"),
        ),
        (
            "links",
            SEAL,
            Tar::new()
                .file("a", "1")
                .hardlink("b", "a")
                .symlink("s", "a")
                .hardlink("t", "s")
                .file("a", "2"),
        ),
        (
            "nodes",
            SEAL,
            Tar::new()
                .device("c", b'3', 5, 1)
                .device("d", b'4', 259, 300_000)
                .fifo("p"),
        ),
        (
            "whiteouts",
            SEAL,
            Tar::new()
                .dir("d")
                .file("d/.wh..wh..opq", "")
                .file("d/.wh.a", "")
                .file("d/a", "1"),
        ),
        (
            "whiteouts-kept",
            SEAL | 2,
            Tar::new().file("d/.wh..wh..opq", "").file("d/.wh.a", ""),
        ),
        (
            "backslashes",
            SEAL | 4,
            Tar::new().file("a\\b", "1").hardlink("c\\d", "a\\b"),
        ),
        (
            "inline",
            SEAL | 8,
            Tar::new().file("a", "1").file("b", [7; 150]).dir("d"),
        ),
        (
            "small-blocks",
            SEAL | 0x10,
            Tar::new().file("a", [7; 3000]).symlink("s", "t".repeat(99)),
        ),
        (
            "numbers",
            SEAL,
            Tar::new()
                .header(&all(b'0', 0x7fff_fff1))
                .data("ab")
                .header(&all(b'7', 3))
                .data("ab"),
        ),
        (
            "long",
            SEAL,
            Tar::new()
                .long(b'L', "x/".repeat(70))
                .file("a", "1")
                .long(b'K', "t".repeat(200))
                .symlink("b", "c"),
        ),
        (
            "global",
            SEAL,
            Tar::new()
                .pax(b'g', &[("uid", b"77"), ("comment", b"c")])
                .file("a", "1")
                .pax(b'g', &[("uid", b"")])
                .file("b", "2"),
        ),
        (
            "attributes",
            SEAL,
            Tar::new()
                .pax(
                    b'x',
                    &[
                        ("mtime", b"-3.25"),
                        ("SCHILY.xattr.user.a", b"\0\xff="),
                        (
                            "SCHILY.xattr.security.capability",
                            b"\x01\0\0\x02\0 \0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                        ),
                        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                        ("LIBARCHIVE.xattr.user.b", b"YQ=="),
                        (
                            "SCHILY.acl.access",
                            b"user::rw-,user:5:r--,group::r--,mask::r--,other::---",
                        ),
                    ],
                )
                .file("a", "1"),
        ),
        (
            "old-sparse",
            SEAL,
            Tar::new()
                .header(&Header {
                    tail: gnu_sparse_tail(&[(512, 2), (4096, 1)], false, 9000),
                    ..Header::new("s", b'S', 3).gnu()
                })
                .data("abc"),
        ),
        (
            "huge-sparse",
            SEAL,
            Tar::new()
                .pax(
                    b'x',
                    &[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.name", b"h"),
                        ("GNU.sparse.realsize", b"214748364800"),
                    ],
                )
                .header(&Header::new("x", b'0', 513))
                .data("1\n107374182400\n1\n")
                .data("z"),
        ),
    ];
    for (name, flags, tar) in forged {
        corpus.put_tar(name, flags, &tar.end());
    }
}

/// The malformed frames of the protocol's own tests, and how a conversation begins.
fn bridge() {
    let corpus = Corpus::open("bridge");
    let (_, negotiate) = host::Session::new()
        .request(&Request::negotiate(), ())
        .expect("a request");
    corpus.put("negotiate", &negotiate);
    let lines = include_str!("../../crates/bridge/testdata/malformed.txt");
    for line in lines.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.splitn(4, '|').map(str::trim).collect();
        let [name, _, header, body] = fields[..] else {
            continue;
        };
        let digits = header
            .split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16));
        let mut bytes: Vec<u8> = digits.collect::<Result<_, _>>().expect("hexadecimal");
        if bytes.len() == 16 && bytes[4..8] == [0; 4] {
            bytes[4..8].copy_from_slice(&(16 + body.len() as u32).to_le_bytes());
        }
        bytes.extend(body.as_bytes());
        corpus.put(
            &name.replace([' ', '/'], "-"),
            &[&negotiate[..], &bytes].concat(),
        );
    }
    let lines = include_str!("../../crates/bridge/testdata/conversation.txt");
    let lines: Vec<&str> = lines.lines().collect();
    for end in ["host", "guest"] {
        let mut bytes = Vec::new();
        for pair in lines.windows(2) {
            if let (Some(header), Some(body)) =
                (pair[0].strip_prefix(end), pair[1].strip_prefix("      "))
            {
                let digits = header
                    .split_whitespace()
                    .map(|byte| u8::from_str_radix(byte, 16));
                bytes.extend(digits.collect::<Result<Vec<u8>, _>>().expect("hexadecimal"));
                bytes.extend(body.as_bytes());
            }
        }
        corpus.put(&format!("conversation-{end}"), &bytes);
    }
}

/// Programs for the vsock device: steps as `entries/vsock.rs` reads them.
fn vsock() {
    let corpus = Corpus::open("vsock");
    let packet = |port: u8, op: u8, flags: u8, len: u16| {
        let mut step = vec![0, port << 4 | 1, op, 0, flags];
        step.extend(len.to_le_bytes());
        step.extend(len.to_le_bytes());
        step.extend((256_u32 << 10).to_le_bytes());
        step.extend([0; 4]);
        step
    };
    const REQUEST: u8 = 1;
    const RST: u8 = 3;
    const SHUTDOWN: u8 = 4;
    const RW: u8 = 5;
    const CREDIT_REQUEST: u8 = 7;
    let buffers = vec![4; 16];
    let open = [&buffers[..], &packet(1, REQUEST, 0, 0), &[9]].concat();
    let put = |name: &str, steps: &[&[u8]]| corpus.put(name, &[&open[..], &steps.concat()].concat());
    let data = packet(1, RW, 0, 4096);
    put("data-and-half-closes", &[
        &data,
        &[10, 0, 0xff, 0],
        &packet(1, SHUTDOWN, 2, 0),
        &[11, 0, 100, 0],
        &[12, 0],
        &packet(1, SHUTDOWN, 3, 0),
    ]);
    put("slow-reader-reset", &[&data.repeat(40), &packet(1, RST, 0, 0), &[10, 0, 0xff, 0xff]]);
    put("host-drops", &[&[11, 0, 0xff, 0xff], &[13, 0], &data, &[14, 1], &[14, 1]]);
    put("beyond-the-credit", &[&data.repeat(200)]);
    put("restart", &[&data, &[14, 2], &buffers, &packet(1, REQUEST, 0, 0), &[9], &data]);
    put("connect", &[&[14, 0, 80], &[4; 4], &[14, 0, 81], &[14, 1]]);
    put("strays", &[&packet(2, RW, 0, 10), &packet(3, CREDIT_REQUEST, 0, 0).repeat(60)]);
    put("request-flood", &[&(0..16).flat_map(|port| packet(port, REQUEST, 0, 0)).collect::<Vec<_>>().repeat(12)]);
    // A loop of empty descriptors, a chain out of memory, an index beyond the queue.
    put("odd-chains", &[
        &[6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        &[7, 1, 0, 0],
        &[6, 0x81, 1, 0, 8, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0],
        &[7, 1, 1, 0],
        &[8, 2, 0x14, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0],
    ]);
}
