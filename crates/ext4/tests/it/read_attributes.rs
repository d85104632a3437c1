//! Attributes, devices and special inodes that `debugfs` made.

use std::fs::{self, File};

use opengcs_ext4::{Device, ErrorKind, FileType, Reader, Xattr};

use crate::read_tools::{Scratch, e2fsck, noise, run, tree_of_image};

/// An ACL as `getxattr` gives it: owner, user 1000, group, group 70000, mask, others.
fn acl() -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1u16, 6u16, u32::MAX),
        (2, 7, 1000),
        (4, 4, u32::MAX),
        (8, 5, 70000),
        (0x10, 7, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn check(options: &str, values: &[(&str, Vec<u8>)]) {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    fs::create_dir_all(source.join("dir")).unwrap();
    fs::write(source.join("file"), b"content").unwrap();
    let image = scratch.make(options, "16M", Some(&source));
    let mut commands = Vec::new();
    let mut expected = Vec::new();
    for (index, (name, value)) in values.iter().enumerate() {
        let file = scratch.path(&format!("value-{index}"));
        fs::write(&file, value).unwrap();
        for node in ["file", "dir"] {
            commands.push(format!("ea_set -f {} {node} {name}", file.display()));
        }
        let name = name.as_bytes().to_vec();
        let value = value.clone();
        expected.push(Xattr { name, value });
    }
    scratch.debugfs(&image, &commands);
    // debugfs 1.47.0 counts blocks of values wrongly.
    e2fsck(&image);
    expected.sort();
    let tree = tree_of_image(&image);
    for node in ["/file", "/dir"] {
        let found = &tree[node.as_bytes()].xattrs;
        let brief = |xattrs: &[Xattr]| -> Vec<(String, usize)> {
            let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
            let brief = xattrs.iter().map(|x| (name(&x.name), x.value.len()));
            brief.collect()
        };
        assert_eq!(brief(found), brief(&expected), "{options}: {node}");
        assert!(*found == expected, "{options}: {node}");
    }
    assert_eq!(tree[&b"/file"[..]].content, b"content");
}

#[test]
fn attributes_in_inode_and_block() {
    let long = "user.".to_owned() + &"n".repeat(250);
    let values = [
        ("user.empty", Vec::new()),
        ("user.short", b"value".to_vec()),
        ("user.long", noise(1, 500)),
        (long.as_str(), b"v".to_vec()),
        ("trusted.overlay.opaque", b"y".to_vec()),
        ("security.capability", noise(2, 20)),
        ("system.posix_acl_access", acl()),
    ];
    check("-t ext4 -b 4096", &values);
    check("-t ext4 -b 4096 -I 128", &values);
    check("-t ext4 -b 1024 -O ^metadata_csum -I 1024", &values);
    check("-t ext4 -b 4096 -O inline_data -I 512", &values);
    check("-t ext2 -b 4096", &values);
}

#[test]
fn attributes_in_inodes_of_their_own() {
    // debugfs 1.47.0 takes a block of a value at most; the kernel's test has larger ones.
    for (options, most) in [
        ("-t ext4 -b 4096 -O ea_inode", 4096),
        ("-t ext4 -b 1024 -O ea_inode,^metadata_csum", 1024),
    ] {
        let values = [
            ("user.short", b"value".to_vec()),
            ("user.large", noise(1, most - 100)),
            ("user.larger", noise(2, most)),
            ("user.medium", noise(3, most / 2)),
        ];
        check(options, &values);
    }
}

#[test]
fn devices_of_both_encodings() {
    let scratch = Scratch::new();
    let image = scratch.make("-t ext4 -b 4096", "16M", None);
    let devices = [
        ("old", 'c', 5, 1),
        ("large", 'b', 259, 60_000),
        ("largest", 'c', 4095, 65_535),
        ("minor", 'b', 8, 300),
    ];
    let mut commands: Vec<String> = devices
        .map(|(name, kind, major, minor)| format!("mknod {name} {kind} {major} {minor}"))
        .to_vec();
    commands.push("mknod pipe p".to_owned());
    scratch.debugfs(&image, &commands);
    let tree = tree_of_image(&image);
    for (name, kind, major, minor) in devices {
        let node = &tree[format!("/{name}").as_bytes()];
        let file_type = match kind {
            'c' => FileType::CharDevice,
            _ => FileType::BlockDevice,
        };
        assert_eq!(node.file_type, file_type, "{name}");
        assert_eq!(node.device, Some(Device { major, minor }), "{name}");
    }
    assert_eq!(tree[&b"/pipe"[..]].file_type, FileType::Fifo);
    assert_eq!(tree[&b"/pipe"[..]].device, None);
}

#[test]
fn encrypted_inodes_are_refused_by_name() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    fs::create_dir_all(source.join("dir")).unwrap();
    fs::write(source.join("file"), b"content").unwrap();
    let image = scratch.make("-t ext4 -b 4096 -O encrypt", "16M", Some(&source));
    let commands = ["sif file flags 0x80800", "sif dir flags 0x80800"];
    scratch.debugfs(&image, &commands.map(str::to_owned));
    let reader = Reader::open(File::open(&image).unwrap()).unwrap();
    let root = reader.inode(reader.root()).unwrap();
    for entry in reader.read_dir(&root).unwrap() {
        let inode = reader.inode(entry.inode).unwrap();
        let error = match entry.name.as_slice() {
            b"file" => reader.segments(&inode).map(drop).unwrap_err(),
            b"dir" => reader.read_dir(&inode).unwrap_err(),
            _ => continue,
        };
        assert!(inode.is_encrypted());
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.inode(), Some(entry.inode));
        assert!(error.to_string().contains("encrypted"), "{error}");
    }
}

#[test]
fn unknown_features_are_refused_by_name() {
    let scratch = Scratch::new();
    for (feature, name) in [("dirdata", "dirdata"), ("FEATURE_I30", "0x40000000")] {
        let image = scratch.make("-t ext4 -b 4096", "16M", None);
        scratch.debugfs(&image, &[format!("feature {feature}")]);
        let error = Reader::open(File::open(&image).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn summaries_agree_with_dumpe2fs() {
    let scratch = Scratch::new();
    let image = scratch.make("-t ext4 -b 1024 -L label", "16M", None);
    e2fsck(&image);
    let text = run("dumpe2fs", &["-h", image.to_str().unwrap()], &[0]);
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].trim().to_owned()
    };
    let reader = Reader::open(File::open(&image).unwrap()).unwrap();
    let summary = reader.summary();
    assert_eq!(summary.blocks.to_string(), field("Block count:"));
    assert_eq!(summary.free_blocks.to_string(), field("Free blocks:"));
    assert_eq!(summary.inodes.to_string(), field("Inode count:"));
    assert_eq!(summary.free_inodes.to_string(), field("Free inodes:"));
    assert_eq!(summary.block_size.to_string(), field("Block size:"));
    assert_eq!(summary.inode_size.to_string(), field("Inode size:"));
    assert_eq!(summary.label, b"label");
    let hex: String = summary.uuid.map(|byte| format!("{byte:02x}")).concat();
    assert_eq!(hex, field("Filesystem UUID:").replace('-', ""));
    let features = [summary.compat, summary.incompat, summary.ro_compat].concat();
    assert_eq!(features.join(" "), field("Filesystem features:"));
}
