//! A synthetic layer of many files: the same bytes on every machine.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Result;
use tar::{Builder, EntryType, Header};

/// Writes a tar of `files` files in folders of 100, together about `mib` MiB. Most are small, as in a
/// real layer: one in sixteen holds most of the bytes.
pub(crate) fn write(path: &Path, files: u32, mib: u32) -> Result<()> {
    let mut tar = Builder::new(BufWriter::with_capacity(1 << 20, File::create(path)?));
    let average = (u64::from(mib) << 20) / u64::from(files.max(1));
    let content = noise(usize::try_from(average * 13 + 4096)?);
    for number in 0..files {
        let folder = number / 100;
        if number % 100 == 0 {
            let mut header = header(EntryType::Directory, 0);
            header.set_path(format!("layer/{folder}/"))?;
            header.set_cksum();
            tar.append(&header, &[][..])?;
        }
        let size = if number % 16 == 0 {
            average * 12
        } else {
            average * 4 / 15
        };
        let mut header = header(EntryType::Regular, size);
        header.set_path(format!("layer/{folder}/file-{number}"))?;
        header.set_cksum();
        let start = usize::try_from(number % 4096)?;
        tar.append(&header, &content[start..][..usize::try_from(size)?])?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory {
        0o755
    } else {
        0o644
    });
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header
}

/// Bytes that neither compress away nor look like holes.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Half of each word: text-like entropy, so that gzip has something to do.
        bytes.extend((state & 0x0f0f_0f0f_0f0f_0f0f).to_le_bytes());
    }
    bytes
}
