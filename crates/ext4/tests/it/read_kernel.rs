//! Images that the running kernel wrote, held against what it showed while they were mounted.

use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::Path;

use opengcs_ext4::Xattr;

use crate::journal_kernel::{Mount, work};
use crate::read_tools::{Scratch, assert_same, noise, plant, run, tree_of_folder, tree_of_image};

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    let script = "import os,sys\n\
        os.setxattr(sys.argv[1],sys.argv[2],bytes.fromhex(sys.stdin.read()),follow_symlinks=False)";
    let mut child = std::process::Command::new("python3")
        .args(["-c", script, path.to_str().unwrap(), name])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, hex.as_bytes()).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success(), "{name}");
}

fn check(options: &str, names: u32, value_size: usize) {
    let scratch = Scratch::new();
    let image = scratch.make(options, "200M", None);
    let mount = Mount::new(&image, scratch.path("mount"), "rw");
    let root = mount.0.clone();
    plant(&root.join("planted"), names, 20 << 20, 900);
    work(&root, 5, 200);
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    for (name, kind, major, minor) in [
        ("old", "c", "5", "1"),
        ("new", "b", "259", "70000"),
        ("whiteout", "c", "0", "0"),
    ] {
        run("mknod", &[&path(name), kind, major, minor], &[0]);
    }
    drop(UnixListener::bind(root.join("socket")).unwrap());
    // ext2 and ext3 cannot.
    run("fallocate", &["-l", "3000000", &path("unwritten")], &[0, 1]);
    fs::write(root.join("kept"), noise(1, 5000)).unwrap();
    run(
        "fallocate",
        &["-n", "-l", "3000000", &path("kept")],
        &[0, 1],
    );
    fs::write(root.join("punched"), noise(2, 300_000)).unwrap();
    run(
        "fallocate",
        &["-p", "-o", "70000", "-l", "90000", &path("punched")],
        &[0, 1],
    );
    // So many pieces that extents need blocks.
    let pieces = File::create(root.join("pieces")).unwrap();
    for piece in (0..1500u64).rev() {
        std::os::unix::fs::FileExt::write_at(&pieces, &noise(piece, 700), piece * 9000).unwrap();
    }
    drop(pieces);
    let values: Vec<Xattr> = [
        ("security.capability", 20),
        ("trusted.overlay.opaque", 1),
        ("user.large", value_size),
        ("user.short", 10),
    ]
    .map(|(name, size)| Xattr {
        name: name.into(),
        value: match name {
            "security.capability" => {
                let mut value = vec![0; 20];
                value[..4].copy_from_slice(&0x0200_0001_u32.to_le_bytes());
                value[5] = 4;
                value
            }
            _ => noise(3, size),
        },
    })
    .to_vec();
    for Xattr { name, value } in &values {
        set_xattr(
            &root.join("kept"),
            std::str::from_utf8(name).unwrap(),
            value,
        );
    }
    let by_kernel = tree_of_folder(&root);
    drop(mount);
    let mut found = tree_of_image(&image);
    let kept = found.get_mut(&b"/kept"[..]).unwrap();
    assert!(std::mem::take(&mut kept.xattrs) == values, "{options}");
    assert_same(options, &found, &by_kernel);
}

#[test]
#[ignore = "needs root and loop devices"]
fn what_the_kernel_wrote_reads_as_it_showed_it() {
    check("-t ext4 -b 4096", 3000, 3000);
    check("-t ext4 -b 1024 -O large_dir", 20_000, 700);
    check("-t ext4 -b 1024 -O ^metadata_csum", 20_000, 700);
    check("-t ext4 -b 4096 -O inline_data -I 512", 3000, 200);
    check("-t ext4 -b 4096 -O ea_inode", 3000, 60_000);
    check("-t ext4 -b 1024 -O ea_inode,inline_data", 3000, 60_000);
    check("-t ext4 -b 2048 -O orphan_file", 3000, 900);
    check("-t ext4 -b 4096 -O bigalloc -C 32768", 3000, 900);
    check(
        "-t ext4 -b 1024 -O meta_bg,^resize_inode,fast_commit",
        3000,
        700,
    );
    check("-t ext3 -b 1024", 3000, 700);
    check("-t ext2 -b 1024", 3000, 700);
}
