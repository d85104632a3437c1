//! The running kernel mounts what the writer wrote, reads it, and works on it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use opengcs_ext4::{Device, FileType, Metadata, Writer, WriterOptions, Xattr};

use crate::judge::Image;

struct Mount(PathBuf);

impl Mount {
    fn new(image: &Image, options: &str) -> Self {
        let at = image.beside("mount");
        fs::create_dir_all(&at).unwrap();
        let output = Command::new("mount")
            .args(["-t", "ext4", "-o", &format!("loop,{options}")])
            .arg(image.path())
            .arg(&at)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

fn content(number: usize) -> Vec<u8> {
    (0..number * 37)
        .map(|at| (at * number + at / 251) as u8 | 1)
        .collect()
}

/// An ACL with a named user, as `getxattr` gives it.
fn acl() -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in [
        (0x01u16, 7u16, u32::MAX),
        (0x02, 5, 1000),
        (0x04, 5, u32::MAX),
        (0x10, 7, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&perm.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    acl
}

fn fill(writer: &mut Writer<File>) {
    let root = writer.root();
    let many = writer
        .create_directory(
            root,
            b"many",
            Metadata {
                mode: 0o755,
                ..Metadata::default()
            },
        )
        .unwrap();
    for number in 0..3000 {
        let name = format!("a name that is not too short {number}");
        let xattrs = vec![
            Xattr {
                name: b"user.a".into(),
                value: vec![1; 20],
            },
            Xattr {
                name: b"user.b".into(),
                value: vec![2; 90],
            },
        ];
        let metadata = Metadata {
            mode: 0o644,
            xattrs,
            ..Metadata::default()
        };
        let mut file = writer.create_file(many, name.as_bytes(), metadata).unwrap();
        file.write(&content(number)).unwrap();
        file.finish().unwrap();
    }
    let mut holes = writer
        .create_file(root, b"holes", Metadata::default())
        .unwrap();
    for number in 0..2000u32 {
        holes.write(&[number as u8 | 1; 4096]).unwrap();
        holes.skip(4096).unwrap();
    }
    holes.finish().unwrap();
    let device = Device {
        major: 300,
        minor: 70_001,
    };
    writer
        .create_special(
            root,
            b"device",
            FileType::BlockDevice,
            device,
            Metadata::default(),
        )
        .unwrap();
    writer
        .create_symlink(root, b"slow", &[b's'; 200], Metadata::default())
        .unwrap();
    writer
        .create_symlink(root, b"fast", b"many", Metadata::default())
        .unwrap();
}

fn read(mount: &Mount) {
    use std::os::unix::fs::MetadataExt;
    let many = mount.0.join("many");
    assert_eq!(fs::read_dir(&many).unwrap().count(), 3000);
    for number in (0..3000).step_by(7) {
        let path = many.join(format!("a name that is not too short {number}"));
        assert_eq!(fs::read(&path).unwrap(), content(number), "{number}");
    }
    let holes = fs::read(mount.0.join("holes")).unwrap();
    for (number, pair) in holes.chunks(8192).enumerate() {
        assert!(pair[..4096].iter().all(|&byte| byte == number as u8 | 1));
        assert!(pair[4096..].iter().all(|&byte| byte == 0));
    }
    assert_eq!(
        fs::read_link(mount.0.join("slow"))
            .unwrap()
            .as_os_str()
            .len(),
        200
    );
    let device = fs::symlink_metadata(mount.0.join("device")).unwrap().rdev();
    assert_eq!(
        (device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00),
        (300, 70_001)
    );
}

/// Fills directories past a split of their trees, frees and takes blocks and inodes.
fn work(mount: &Mount) {
    for folder in ["many", "new"] {
        let folder = mount.0.join(folder);
        fs::create_dir_all(&folder).unwrap();
        for number in 0..3000 {
            fs::write(
                folder.join(format!("added by the kernel {number}")),
                content(number % 300),
            )
            .unwrap();
        }
        for number in (0..3000).step_by(3) {
            fs::remove_file(folder.join(format!("added by the kernel {number}"))).unwrap();
        }
    }
    for number in (0..3000).step_by(2) {
        fs::remove_file(
            mount
                .0
                .join(format!("many/a name that is not too short {number}")),
        )
        .unwrap();
    }
    fs::write(mount.0.join("large"), vec![9; 20 << 20]).unwrap();
    fs::remove_file(mount.0.join("holes")).unwrap();
}

#[test]
#[ignore = "needs root and loop devices"]
fn kernel_reads_layers() {
    for block_size in [1024, 2048, 4096] {
        for inline_data in [false, true] {
            let options = WriterOptions::default()
                .block_size(block_size)
                .inline_data(inline_data)
                .ea_inode(true);
            let image = Image::write(&options, |writer| {
                fill(writer);
                let root = writer.root();
                writer.set_xattr(root, b"user.huge", &[5; 30_000]).unwrap();
                writer.set_xattr(root, b"user.small", &[6; 300]).unwrap();
                writer
                    .set_xattr(root, b"system.posix_acl_default", &acl())
                    .unwrap();
            });
            image.check();
            {
                let mount = Mount::new(&image, "ro");
                read(&mount);
                let script = "import os,sys\nassert os.getxattr(sys.argv[1],'user.huge')==b'\\5'*30000\nassert os.getxattr(sys.argv[1],'user.small')==b'\\6'*300\nassert os.getxattr(sys.argv[1]+'/many/a name that is not too short 5','user.b')==b'\\2'*90\nassert os.getxattr(sys.argv[1],'system.posix_acl_default').hex()==sys.argv[2]";
                let status = Command::new("python3")
                    .args(["-c", script])
                    .arg(&mount.0)
                    .arg(
                        acl()
                            .iter()
                            .map(|byte| format!("{byte:02x}"))
                            .collect::<String>(),
                    )
                    .status()
                    .unwrap();
                assert!(status.success());
            }
            image.check();
        }
    }
}

#[test]
#[ignore = "needs root and loop devices"]
fn kernel_works_on_scratch_images() {
    for (block_size, size, journal) in [
        (1024, 300 << 20, None),
        (1024, 300 << 20, Some(4 << 20)),
        (1024, 300 << 20, Some(40 << 20)),
        (1024, 300u64 << 30, None),
        (2048, 1 << 30, Some(8 << 20)),
        (4096, 20 << 30, None),
        (4096, 20 << 30, Some(64 << 20)),
    ] {
        let options = WriterOptions::default()
            .block_size(block_size)
            .size(size)
            .journal(journal);
        let image = Image::write(&options, fill);
        image.check();
        {
            let mount = Mount::new(&image, "rw");
            read(&mount);
            work(&mount);
        }
        image.check();
    }
}

#[test]
#[ignore = "needs root and loop devices"]
fn kernel_reads_volumes_of_small_groups() {
    let image = Image::write(&WriterOptions::default(), |writer| {
        let root = writer.root();
        for number in 0..100_000u32 {
            let file = writer
                .create_file(root, number.to_string().as_bytes(), Metadata::default())
                .unwrap();
            file.finish().unwrap();
        }
        fill(writer);
    });
    image.check();
    {
        let mount = Mount::new(&image, "rw");
        read(&mount);
        for number in (0..100_000).step_by(10) {
            fs::remove_file(mount.0.join(number.to_string())).unwrap();
        }
        for number in 0..500 {
            fs::write(mount.0.join(format!("new {number}")), []).unwrap();
        }
    }
    image.check();
}

impl Mount {
    /// Bytes read from the image since it was mounted.
    fn bytes_read(&self) -> u64 {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let at = self.0.to_str().unwrap();
        let device = mounts
            .lines()
            .find_map(|line| {
                line.split_once(' ')
                    .filter(|(_, rest)| rest.starts_with(at))
            })
            .and_then(|(device, _)| device.strip_prefix("/dev/"))
            .expect("it is mounted");
        let stat = fs::read_to_string(format!("/sys/block/{device}/stat")).unwrap();
        let sectors = stat.split_whitespace().nth(2).unwrap();
        sectors.parse::<u64>().unwrap() * 512
    }
}

#[test]
#[ignore = "needs root and loop devices"]
fn kernel_finds_a_name_among_100_000_without_reading_them_all() {
    let image = Image::write(&WriterOptions::default(), |writer| {
        let root = writer.root();
        let many = writer
            .create_directory(root, b"many", Metadata::default())
            .unwrap();
        let one = writer
            .create_file(root, b"one", Metadata::default())
            .unwrap()
            .finish()
            .unwrap();
        for number in 0..100_000u32 {
            let name = format!("a name that is not too short {number}");
            // So many links do not fit on one file.
            if number % 2 == 0 {
                let file = writer
                    .create_file(many, name.as_bytes(), Metadata::default())
                    .unwrap();
                file.finish().unwrap();
            } else {
                writer.link(one, many, name.as_bytes()).unwrap();
            }
        }
    });
    image.check();
    let looked_up = |name: &str| {
        let mount = Mount::new(&image, "ro");
        let many = mount.0.join("many");
        let before = mount.bytes_read();
        let found = many.join(name).symlink_metadata().is_ok();
        (found, mount.bytes_read() - before)
    };
    let all = {
        let mount = Mount::new(&image, "ro");
        let before = mount.bytes_read();
        assert_eq!(fs::read_dir(mount.0.join("many")).unwrap().count(), 100_000);
        mount.bytes_read() - before
    };
    for number in [0, 1, 77_777, 99_999] {
        let (found, read) = looked_up(&format!("a name that is not too short {number}"));
        assert!(found, "{number}");
        assert!(read * 10 < all, "{read} of {all} bytes read for {number}");
    }
    let (found, read) = looked_up("a name that is not there");
    assert!(!found && read * 10 < all, "{read} of {all} bytes read");
    let mount = Mount::new(&image, "ro");
    for number in 0..100_000 {
        let path = mount
            .0
            .join(format!("many/a name that is not too short {number}"));
        assert!(path.symlink_metadata().is_ok(), "{number}");
    }
}

#[test]
#[ignore = "needs root and loop devices"]
fn kernel_works_in_directories_inside_inodes() {
    let options = WriterOptions::default()
        .size(64 << 20)
        .inline_data(true)
        .ea_inode(true);
    let image = Image::write(&options, |writer| {
        let root = writer.root();
        for names in 0..12 {
            let folder = writer
                .create_directory(root, format!("d{names}").as_bytes(), Metadata::default())
                .unwrap();
            for number in 0..names {
                writer
                    .create_symlink(
                        folder,
                        format!("name {number}").as_bytes(),
                        b"x",
                        Metadata::default(),
                    )
                    .unwrap();
            }
        }
    });
    image.check();
    {
        let mount = Mount::new(&image, "rw");
        for names in 0..12 {
            let folder = mount.0.join(format!("d{names}"));
            assert_eq!(fs::read_dir(&folder).unwrap().count(), names);
            for number in 0..names {
                let link = fs::read_link(folder.join(format!("name {number}"))).unwrap();
                assert_eq!(link.to_str(), Some("x"));
            }
            // The kernel grows them, in the inode and then out of it, and takes names away.
            for number in 0..names * 2 {
                fs::write(folder.join(format!("added {number}")), "1").unwrap();
            }
            for number in (0..names).step_by(2) {
                fs::remove_file(folder.join(format!("name {number}"))).unwrap();
            }
            assert_eq!(
                fs::read_dir(&folder).unwrap().count(),
                names * 3 - names.div_ceil(2)
            );
        }
        let sub = mount.0.join("d3/sub");
        fs::create_dir(&sub).unwrap();
        fs::rename(&sub, mount.0.join("d0/moved")).unwrap();
    }
    image.check();
}
