//! Where extended attributes lie, and which are refused.

use opengcs_ext4::{Metadata, Writer, Xattr};

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
