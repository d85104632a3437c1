//! What nodes become: their kinds, names, owners, times, and what is left when they go.

use opengcs_ext4::{Device, FileType, Metadata, Timestamp, Writer};

use super::{BLOCK_SIZES, file, metadata, noise, options};
use crate::judge::Image;

#[test]
fn every_kind_of_node_is_there() {
    for block_size in BLOCK_SIZES {
        let long = "t".repeat(block_size as usize - 1);
        let image = Image::write(&options(block_size), |writer| {
            let root = writer.root();
            let directory = writer.create_directory(root, b"dir", metadata()).unwrap();
            let hello = file(writer, directory, "hello", b"hello\n");
            writer.link(hello, root, b"again").unwrap();
            file(writer, directory, "big", &noise(3_000_000, 1));
            file(writer, directory, "empty", b"");
            writer
                .create_symlink(root, b"fast", b"dir/hello", metadata())
                .unwrap();
            writer
                .create_symlink(root, b"fast59", &[b'x'; 59], metadata())
                .unwrap();
            writer
                .create_symlink(root, b"slow60", &[b'x'; 60], metadata())
                .unwrap();
            writer
                .create_symlink(root, b"slow", long.as_bytes(), metadata())
                .unwrap();
            for (name, file_type, major, minor) in [
                ("null", FileType::CharDevice, 1, 3),
                ("new", FileType::CharDevice, 259, 70_000),
                ("disk", FileType::BlockDevice, 8, 1),
                ("pipe", FileType::Fifo, 0, 0),
                ("sock", FileType::Socket, 0, 0),
            ] {
                let device = Device { major, minor };
                writer
                    .create_special(root, name.as_bytes(), file_type, device, metadata())
                    .unwrap();
            }
        });
        image.check();
        assert_eq!(image.dump("/again"), b"hello\n");
        assert_eq!(image.dump("/dir/big"), noise(3_000_000, 1));
        assert_eq!(image.dump("/dir/empty"), b"");
        assert!(image.debugfs("stat /again").contains("Links: 2"));
        assert!(
            image
                .debugfs("stat /fast")
                .contains("Fast link dest: \"dir/hello\"")
        );
        assert!(
            image
                .debugfs("stat /null")
                .contains("Device major/minor number: 01:03")
        );
        assert!(
            image
                .debugfs("stat /new")
                .contains("Device major/minor number: 259:70000")
        );
        assert!(image.debugfs("stat /pipe").contains("Type: FIFO"));
        assert!(image.debugfs("stat /sock").contains("Type: socket"));
        assert!(
            image
                .debugfs("stat /slow")
                .contains(&format!("Size: {}", long.len()))
        );
    }
}

#[test]
fn owners_modes_and_times_are_exact() {
    let image = Image::write(&options(4096), |writer| {
        let root = writer.root();
        let odd = Metadata {
            mode: 0o6755,
            uid: 3_000_000_000,
            gid: 70_000,
            mtime: Timestamp {
                seconds: 10_000_000_000,
                nanoseconds: 5,
            },
            atime: Timestamp {
                seconds: -2,
                nanoseconds: 500_000_000,
            },
            ..metadata()
        };
        writer.create_directory(root, b"odd", odd).unwrap();
    });
    image.check();
    let stat = image.debugfs("stat /odd");
    assert!(stat.contains("Mode:  06755"), "{stat}");
    assert!(stat.contains("User: -1294967296   Group: 70000"), "{stat}");
    assert!(stat.contains("mtime: 0x540be400:00000016"), "{stat}");
    assert!(stat.contains("atime: 0xfffffffe:77359400"), "{stat}");
}

#[test]
fn removed_and_replaced_nodes_leave_free_blocks() {
    let image = Image::write(&options(4096), |writer| {
        let root = writer.root();
        let directory = writer.create_directory(root, b"gone", metadata()).unwrap();
        for number in 0..50 {
            file(
                writer,
                directory,
                &format!("f{number}"),
                &noise(100_000, number),
            );
        }
        let kept = writer.lookup(directory, b"f7").unwrap();
        writer.link(kept, root, b"kept").unwrap();
        writer.remove(root, b"gone").unwrap();
        assert!(writer.lookup(root, b"gone").is_none());
        file(writer, root, "gone", &noise(5_000_000, 99));
        let mut abandoned = writer.create_file(root, b"abandoned", metadata()).unwrap();
        abandoned.write(&noise(1_000_000, 5)).unwrap();
        drop(abandoned);
    });
    image.check();
    assert!(image.finished.free_blocks > 1000);
    assert_eq!(image.dump("/kept"), noise(100_000, 7));
    assert_eq!(image.dump("/gone"), noise(5_000_000, 99));
    assert!(image.debugfs("stat /kept").contains("Links: 1"));
}

#[test]
fn names_and_places_that_cannot_be_are_refused() {
    use opengcs_ext4::ErrorKind;
    let mut writer = Writer::new(vec![0u8; 1 << 20], &options(4096)).unwrap();
    let root = writer.root();
    for (name, kind) in [
        (&b""[..], ErrorKind::InvalidInput),
        (b".", ErrorKind::InvalidInput),
        (b"..", ErrorKind::InvalidInput),
        (b"a/b", ErrorKind::InvalidInput),
        (b"a\0", ErrorKind::InvalidInput),
        (&[b'x'; 256], ErrorKind::TooLarge),
        (b"lost+found", ErrorKind::AlreadyExists),
    ] {
        let error = writer.create_directory(root, name, metadata()).unwrap_err();
        assert_eq!(error.kind(), kind, "{name:?}");
        assert_eq!(
            writer
                .create_file(root, name, metadata())
                .unwrap_err()
                .kind(),
            kind
        );
    }
    let node = writer
        .create_symlink(root, b"link", b"x", metadata())
        .unwrap();
    let directory = writer.create_directory(root, b"dir", metadata()).unwrap();
    let wrong = writer.create_directory(node, b"x", metadata()).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::WrongType);
    assert_eq!(
        writer.link(directory, root, b"d2").unwrap_err().kind(),
        ErrorKind::WrongType
    );
    assert_eq!(
        writer.remove(root, b"none").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    writer.remove(root, b"dir").unwrap();
    let gone = writer
        .create_directory(directory, b"x", metadata())
        .unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let device = Device {
        major: 4096,
        minor: 0,
    };
    let error = writer
        .create_special(root, b"dev", FileType::CharDevice, device, metadata())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    for _ in 1..65_000 {
        let name = writer.links(node).to_string();
        writer.link(node, root, name.as_bytes()).unwrap();
    }
    assert_eq!(
        writer.link(node, root, b"more").unwrap_err().kind(),
        ErrorKind::TooLarge
    );
}

#[test]
fn deep_trees_are_written_and_removed() {
    let image = Image::write(&options(4096), |writer| {
        let root = writer.root();
        for top in [&b"kept"[..], b"gone"] {
            let mut parent = writer.create_directory(root, top, metadata()).unwrap();
            for _ in 0..5000 {
                parent = writer.create_directory(parent, b"d", metadata()).unwrap();
            }
        }
        writer.remove(root, b"gone").unwrap();
    });
    image.check();
}
