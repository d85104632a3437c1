//! Which tars are measured: a layer like a distribution's, a heap of small files, one sparse file.
//!
//! The same numbers give the same bytes on every machine.

mod content;
mod layer;
mod random;
mod shape;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Result;
use tar::{Builder, EntryType, Header};

use content::Content;
pub(crate) use layer::write as layer;
use random::Random;

type Tar = Builder<BufWriter<File>>;

/// Bytes in each run of data of the sparse file.
const RUN: usize = 1 << 20;

/// Seconds since 1970 of everything that has no time of its own.
const TIME: u64 = 1_700_000_000;

fn create(path: &Path) -> Result<Tar> {
    Ok(Builder::new(BufWriter::with_capacity(
        1 << 20,
        File::create(path)?,
    )))
}

fn finish(tar: Tar) -> Result<()> {
    Ok(tar.into_inner()?.flush()?)
}

/// Writes a tar of `files` files of up to 1,500 bytes, a thousand to a folder.
pub(crate) fn small(path: &Path, files: u32) -> Result<()> {
    let mut tar = create(path)?;
    let mut random = Random::new(1);
    let text = Content::new(&mut random).text(&mut random, 1 << 16);
    for number in 0..files {
        let folder = number / 1000;
        if number % 100_000 == 0 {
            append(
                &mut tar,
                &format!("{}/", folder / 100),
                EntryType::Directory,
                &[],
            )?;
        }
        if number % 1000 == 0 {
            let path = format!("{}/{folder}/", folder / 100);
            append(&mut tar, &path, EntryType::Directory, &[])?;
        }
        let start = random.below(1 << 15);
        let data = &text[start..][..random.below(1501)];
        let path = format!("{}/{folder}/file-{number}.txt", folder / 100);
        append(&mut tar, &path, EntryType::Regular, data)?;
    }
    finish(tar)
}

/// Writes a tar with one file of `gib` GiB that has five runs of data and is a hole otherwise, in
/// GNU's PAX form 1.0: a map of the runs stands before their bytes.
pub(crate) fn sparse(path: &Path, gib: u64) -> Result<()> {
    let size = gib << 30;
    let runs = [
        0,
        size / 5 + 4096,
        size / 2,
        size / 7 * 6,
        size - RUN as u64,
    ];
    let mut map = format!("{}\n", runs.len());
    for start in runs.iter().map(|start| start / 4096 * 4096) {
        map.push_str(&format!("{start}\n{RUN}\n"));
    }
    let mut data = map.into_bytes();
    data.resize(data.len().next_multiple_of(512), 0);
    let mut random = Random::new(2);
    for _ in runs {
        data.extend(content::noise(&mut random, RUN));
    }
    let real = size.to_string();
    let mut tar = create(path)?;
    let records = [
        ("GNU.sparse.major", b"1".as_slice()),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"disk.img"),
        ("GNU.sparse.realsize", real.as_bytes()),
    ];
    let path = "GNUSparseFile.0/disk.img";
    let header = header(EntryType::Regular);
    append_with(&mut tar, path, header, records.to_vec(), &data)?;
    finish(tar)
}

fn append(tar: &mut Tar, path: &str, kind: EntryType, data: &[u8]) -> Result<()> {
    append_with(tar, path, header(kind), Vec::new(), data)
}

fn header(kind: EntryType) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    let executable = kind == EntryType::Directory;
    header.set_mode(if executable { 0o755 } else { 0o644 });
    header.set_mtime(TIME);
    header
}

/// Appends an entry with PAX `records`, to which a path comes that is longer than a header holds.
fn append_with<'a>(
    tar: &mut Tar,
    path: &'a str,
    mut header: Header,
    mut records: Vec<(&'a str, &'a [u8])>,
    data: &[u8],
) -> Result<()> {
    if header.set_path(path).is_err() {
        records.push(("path", path.as_bytes()));
        header.set_path("long")?;
    }
    if !records.is_empty() {
        tar.append_pax_extensions(records)?;
    }
    header.set_size(u64::try_from(data.len())?);
    header.set_cksum();
    Ok(tar.append(&header, data)?)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs::File;

    use anyhow::Result;
    use tar::{Archive, EntryType};

    /// Every path of a tar with its kind and size.
    fn entries(path: &std::path::Path) -> Result<Vec<(String, EntryType, u64)>> {
        let mut found = Vec::new();
        for entry in Archive::new(File::open(path)?).entries()? {
            let entry = entry?;
            let path = String::from_utf8(entry.path_bytes().into_owned())?;
            found.push((path, entry.header().entry_type(), entry.size()));
        }
        Ok(found)
    }

    #[test]
    fn the_layer_has_as_many_files_and_bytes_as_were_asked_for() -> Result<()> {
        let folder = tempfile::TempDir::new()?;
        let path = folder.path().join("layer.tar");
        for files in [1, 13, 500, 5000] {
            super::layer(&path, files, 8)?;
            let entries = entries(&path)?;
            let (mut count, mut bytes) = (BTreeMap::<u8, u32>::new(), 0);
            for (path, kind, size) in &entries {
                *count.entry(kind.as_byte()).or_insert(0) += 1;
                bytes += size;
                assert!(path.len() < 1024);
            }
            assert_eq!(count[&EntryType::Regular.as_byte()], files);
            assert!(bytes <= 8 << 20 && bytes + u64::from(files) >= 8 << 20);
            let paths: BTreeSet<_> = entries.iter().map(|(path, ..)| path).collect();
            assert_eq!(paths.len(), entries.len(), "a path stands twice");
            if files == 5000 {
                assert!(
                    count[&EntryType::Symlink.as_byte()] > 200
                        && count[&EntryType::Link.as_byte()] > 20
                );
                assert!(paths.iter().any(|path| path.len() > 150));
            }
        }
        Ok(())
    }

    #[test]
    fn the_sparse_file_is_long_and_its_tar_short() -> Result<()> {
        let folder = tempfile::TempDir::new()?;
        let path = folder.path().join("sparse.tar");
        super::sparse(&path, 200)?;
        assert!(std::fs::metadata(&path)?.len() < 6 << 20);
        let mut archive = Archive::new(File::open(&path)?);
        let mut entry = archive.entries()?.next().expect("there is an entry")?;
        let records = entry.pax_extensions()?.expect("it has records");
        let sizes: Vec<_> = records
            .filter_map(|record| record.ok().filter(|r| r.key() == Ok("GNU.sparse.realsize")))
            .map(|record| record.value_bytes().to_vec())
            .collect();
        assert_eq!(sizes, [(200_u64 << 30).to_string().into_bytes()]);
        Ok(())
    }
}
