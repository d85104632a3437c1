//! An ext4 image, given in pieces, exported: what comes out is a tar that is taken again.

use std::io::{self, Write};

use opengcs_layer::{DiskToTarOptions, ErrorKind, TarToExt4Options, ext4_to_tar, tar_to_ext4};

use super::pieces::Pieces;

/// An image is cut at this.
const LONGEST: usize = 4 << 20;
/// A tar is given up at this: an image may say the same blocks again and again.
const ENOUGH: usize = 8 << 20;

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > ENOUGH {
            return Err(io::Error::other("enough"));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Exports. Errors are fine, if they are of the right kind.
pub fn run(bytes: &[u8]) {
    let Some(pieces) = Pieces::parse(bytes) else {
        return;
    };
    let image = pieces.expand(LONGEST);
    let options = DiskToTarOptions {
        sparse: true,
        ..DiskToTarOptions::default()
    };
    let mut tar = Bounded(Vec::new());
    match ext4_to_tar(image.as_slice(), &mut tar, &options) {
        Ok(_) => {
            let file = opengcs_vhd::testing::MemoryFile::new();
            file.limit(64 << 20);
            match tar_to_ext4(&tar.0[..], file, &TarToExt4Options::default()) {
                Ok(_) => {}
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Unsupported),
                    "our own tar: {error}"
                ),
            }
        }
        Err(error) => {
            let kind = error.kind();
            let enough = kind == ErrorKind::Io && tar.0.len() > ENOUGH / 2;
            let known = matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported);
            assert!(known || enough, "{kind:?}: {error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
