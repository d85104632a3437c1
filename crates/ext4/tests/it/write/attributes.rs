//! Where extended attributes lie, and which are refused.

use opengcs_ext4::{Metadata, Reader, Writer, Xattr};

use super::{BLOCK_SIZES, metadata, noise, options};
use crate::judge::Image;

#[test]
fn attributes_lie_in_inode_then_block_then_inodes_of_their_own() {
    for block_size in BLOCK_SIZES {
        let xattr = |name: &str, value: Vec<u8>| Xattr {
            name: name.into(),
            value,
        };
        let small = vec![
            xattr("user.a", b"one".to_vec()),
            xattr(
                "security.capability",
                vec![
                    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                ],
            ),
        ];
        let mut more = small.clone();
        more.push(xattr("trusted.overlay.opaque", b"y".to_vec()));
        more.push(xattr("user.empty", vec![]));
        more.push(xattr("user.large", noise(700, 3)));
        let mut most = more.clone();
        most.push(xattr("user.huge", noise(60_000, 4)));
        most.push(xattr("user.huge2", noise(5_000, 5)));
        let image = Image::write(&options(block_size).ea_inode(true), |writer| {
            let root = writer.root();
            for (name, xattrs) in [
                ("small", &small),
                ("more", &more),
                ("same", &more),
                ("most", &most),
            ] {
                let metadata = Metadata {
                    xattrs: xattrs.clone(),
                    ..metadata()
                };
                writer
                    .create_directory(root, name.as_bytes(), metadata)
                    .unwrap();
            }
        });
        image.check();
        assert!(image.debugfs("ea_get /small user.a").contains("one"));
        for path in ["/more", "/same", "/most"] {
            for xattr in &most {
                if path != "/most" && xattr.name.starts_with(b"user.huge") {
                    continue;
                }
                let name = String::from_utf8(xattr.name.clone()).unwrap();
                let target = image.beside("value");
                image.debugfs(&format!("ea_get -f {} {path} {name}", target.display()));
                assert_eq!(
                    std::fs::read(&target).unwrap(),
                    xattr.value,
                    "{path} {name}"
                );
            }
        }
    }
}

#[test]
fn attributes_that_fit_nowhere_are_refused() {
    let mut writer = Writer::new(vec![0u8; 1 << 20], &options(4096)).unwrap();
    let root = writer.root();
    let error = writer
        .set_xattr(root, b"user.huge", &[1; 5000])
        .unwrap_err();
    assert_eq!(error.kind(), opengcs_ext4::ErrorKind::TooLarge);
    let error = writer.set_xattr(root, b"nowhere.x", b"").unwrap_err();
    assert_eq!(error.kind(), opengcs_ext4::ErrorKind::Unsupported);
}

/// Past what is kept in memory, attributes are on disk before the volume ends; that must show nowhere.
#[test]
fn attributes_past_the_memory_for_them_are_set_replaced_and_removed_as_others() {
    const MANY: u64 = 7000;
    let xattrs = |number: u64| {
        let list = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255];
        let other = [
            4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
        ];
        vec![
            Xattr {
                name: b"system.posix_acl_access".to_vec(),
                value: [&list[..], &other].concat(),
            },
            Xattr {
                name: b"user.noise".to_vec(),
                value: noise(3000, number + 1),
            },
        ]
    };
    let huge = Xattr {
        name: b"user.huge".to_vec(),
        value: noise(9000, 77),
    };
    let mark = Xattr {
        name: b"trusted.overlay.opaque".to_vec(),
        value: b"y".to_vec(),
    };
    let mut expected = Vec::new();
    let image = Image::write(&options(4096).ea_inode(true), |writer| {
        let root = writer.root();
        for number in 0..MANY {
            let mut metadata = Metadata {
                xattrs: xattrs(number),
                ..metadata()
            };
            if number % 1000 == 999 {
                metadata.xattrs.push(huge.clone());
            }
            let mut wanted = metadata.xattrs.clone();
            let name = number.to_string();
            let node = writer
                .create_directory(root, name.as_bytes(), metadata)
                .unwrap();
            if number % 500 < 3 || number % 1000 == 999 {
                assert_eq!(writer.xattrs(node).unwrap(), sorted(wanted.clone()));
            }
            match number % 500 {
                0 => {
                    writer.set_xattr(node, &mark.name, &mark.value).unwrap();
                    writer.set_xattr(node, b"user.noise", b"less").unwrap();
                    wanted[1].value = b"less".to_vec();
                    wanted.push(mark.clone());
                }
                1 => {
                    writer.remove(root, name.as_bytes()).unwrap();
                    continue;
                }
                2 => {
                    writer.set_metadata(node, &super::metadata()).unwrap();
                    wanted.clear();
                }
                499 if number % 1000 == 999 => {
                    writer.set_xattr(node, &mark.name, &mark.value).unwrap();
                    wanted.push(mark.clone());
                }
                _ => {}
            }
            assert_eq!(
                writer.xattrs(node).unwrap(),
                sorted(wanted.clone()),
                "{number}"
            );
            expected.push((name, wanted));
        }
    });
    image.check();
    let reader = Reader::open(std::fs::File::open(image.path()).unwrap()).unwrap();
    let root = reader.inode(reader.root()).unwrap();
    let mut found: Vec<_> = reader
        .read_dir(&root)
        .unwrap()
        .into_iter()
        .filter(|entry| entry.name != b"lost+found")
        .map(|entry| {
            let inode = reader.inode(entry.inode).unwrap();
            let name = String::from_utf8(entry.name).unwrap();
            (name, reader.xattrs(&inode).unwrap())
        })
        .collect();
    found.sort();
    expected.sort();
    for (found, (name, xattrs)) in found.iter().zip(&expected) {
        assert_eq!(found, &(name.clone(), sorted(xattrs.clone())));
    }
    assert_eq!(found.len(), expected.len());
}

fn sorted(mut xattrs: Vec<Xattr>) -> Vec<Xattr> {
    xattrs.sort();
    xattrs
}
