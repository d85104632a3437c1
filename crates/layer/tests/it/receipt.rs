//! Digests and receipts, however the tar comes, and what has none.

use std::io::{Read as _, Write as _};
use std::path::Path;

use opengcs_layer::{Control, ErrorKind, Receipt, TarToDiskOptions, tar_to_disk, verify_image};

use crate::forge::Tar;
use crate::judge;

fn sha256(path: &Path) -> String {
    let said = judge::succeed("sha256sum", &[path.to_str().unwrap()]);
    let said = String::from_utf8(said).unwrap();
    format!("sha256:{}", &said.trim_start_matches('\\')[..64])
}

fn options() -> TarToDiskOptions {
    TarToDiskOptions {
        digests: true,
        sync: false,
        ..TarToDiskOptions::default()
    }
}

#[test]
fn digests_are_those_of_the_files_however_they_are_packed() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, packed, disk) = (
        folder.path().join("plain"),
        folder.path().join("packed"),
        folder.path().join("disk"),
    );
    // More than is read ahead, and padding behind the end as tapes have it.
    let tar = Tar::new().file("a", vec![7; 3 << 20]).end();
    let tar = [tar, vec![0; 1 << 20]].concat();
    std::fs::write(&plain, &tar).unwrap();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut two_members = gzip(&tar[..100_000]);
    two_members.extend(gzip(&tar[100_000..]));
    two_members.extend([0; 512]);
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    for bytes in [tar.clone(), two_members, zstd] {
        std::fs::write(&packed, &bytes).unwrap();
        let converted = tar_to_disk(&bytes[..], &disk, &options()).unwrap();
        let digests = converted.digests.as_ref().unwrap();
        assert_eq!(digests.tar, sha256(&packed));
        assert_eq!(digests.tar_size, bytes.len() as u64);
        assert_eq!(digests.diff_id, sha256(&plain));
        assert_eq!(digests.image, sha256(&disk));
        let receipt = Receipt::new(&converted, &options()).unwrap();
        assert_eq!(
            Receipt::parse(receipt.to_json().as_bytes()).unwrap(),
            receipt
        );
        assert_eq!(verify_image(&disk, &receipt, &Control::new()).unwrap(), []);
    }
}

#[test]
fn what_is_not_read_to_its_end_has_no_digest() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    let endless =
        || std::io::Cursor::new(Tar::new().file("a", "1").end()).chain(std::io::repeat(0));
    let error = tar_to_disk(endless(), &disk, &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(!disk.exists());
    let plain = TarToDiskOptions {
        digests: false,
        ..options()
    };
    let converted = tar_to_disk(endless(), &disk, &plain).unwrap();
    assert!(converted.digests.is_none());
    let error = Receipt::new(&converted, &plain).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn receipts_of_other_forms_and_lengths_are_refused() {
    let error = Receipt::parse(br#"{"receipt": 1, "tar": {}}"#).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let error = Receipt::parse(br#"{"receipt": 7}"#).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    if cfg!(unix) {
        let error = Receipt::read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
