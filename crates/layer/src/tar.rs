//! The tar format: entries as plain values, decoded from a stream and encoded to one.
//!
//! Read are V7, ustar, GNU (long names, base-256 numbers, sparse files) and
//! PAX (local and global records, all of GNU's sparse forms). Written is ustar
//! with PAX records where ustar's fields do not suffice.

use std::sync::Arc;

use opengcs_ext4::{Device, Timestamp, Xattr};

mod acl;
mod decode;
mod encode;
mod header;
mod pax;
mod sparse;

pub(crate) use decode::{Chunk, Decoder};
pub(crate) use encode::Encoder;

/// What a tar entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// A run of data in a sparse file; what lies between runs is holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// One entry of a tar, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As the tar gives it, not normalised.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// The target of a symbolic or hard link.
    pub(crate) link: Vec<u8>,
    /// Permission, set-id and sticky bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    pub(crate) atime: Option<Timestamp>,
    pub(crate) ctime: Option<Timestamp>,
    /// For devices; the minor may be wider than what ext4 can hold.
    pub(crate) device: Device,
    pub(crate) xattrs: Vec<Xattr>,
    /// The file's size in bytes, holes included.
    pub(crate) size: u64,
    /// The data runs of a sparse file, ascending.
    pub(crate) runs: Option<Arc<[Run]>>,
    /// Where in the tar the entry's first header starts.
    pub(crate) offset: u64,
}

impl Entry {
    /// An entry with nothing in it, for an encoder's caller to fill.
    pub(crate) fn new(path: Vec<u8>, kind: EntryKind) -> Self {
        Self {
            path,
            kind,
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            atime: None,
            ctime: None,
            device: Device::default(),
            xattrs: Vec::new(),
            size: 0,
            runs: None,
            offset: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;
    use tar_core::parse::{Limits, ParseEvent, Parser};

    use super::header::BLOCK;
    use super::*;

    fn encode(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        for (entry, data) in entries {
            match &entry.runs {
                Some(runs) => encoder
                    .start_sparse(entry, &|| Ok(Box::new(runs.iter().copied().map(Ok))))
                    .unwrap(),
                None => encoder.start(entry).unwrap(),
            }
            encoder.data(data).unwrap();
        }
        encoder.finish().unwrap().0
    }

    fn decode(tar: &[u8]) -> Vec<(Entry, Vec<u8>)> {
        // A small buffer, so that content comes in several chunks.
        let mut decoder = Decoder::new(BufReader::with_capacity(700, tar));
        let mut entries = Vec::new();
        while let Some(entry) = decoder.next_entry().unwrap() {
            let mut data = Vec::new();
            while let Some(chunk) = decoder.next_chunk().unwrap() {
                match chunk {
                    Chunk::Data(bytes) => data.extend_from_slice(bytes),
                    Chunk::Hole(_) => {}
                }
            }
            entries.push((entry, data));
        }
        decoder.drain(None).unwrap();
        assert_eq!(decoder.position(), tar.len() as u64);
        entries
    }

    fn kind() -> impl Strategy<Value = EntryKind> {
        prop::sample::select(vec![
            EntryKind::File,
            EntryKind::HardLink,
            EntryKind::Symlink,
            EntryKind::CharDevice,
            EntryKind::BlockDevice,
            EntryKind::Directory,
            EntryKind::Fifo,
        ])
    }

    fn name(longest: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1..=255u8, 1..longest).prop_filter("a path", |name| {
            !name.ends_with(b"/") && !name.starts_with(b"/")
        })
    }

    prop_compose! {
        fn entry()(
            kind in kind(),
            path in name(400),
            link in name(300),
            (mode, uid, gid) in (0..0o10000u16, any::<u32>(), any::<u32>()),
            (seconds, nanoseconds) in (any::<i32>(), prop_oneof![Just(0), 0..1_000_000_000u32]),
            far in any::<bool>(),
            (major, minor) in (0..4096u32, 0..1_048_576u32),
            xattrs in prop::collection::btree_map(name(40), prop::collection::vec(any::<u8>(), 0..200), 0..4),
            data in prop::collection::vec(any::<u8>(), 0..2000),
        ) -> (Entry, Vec<u8>) {
            let is_file = kind == EntryKind::File;
            let data = if is_file { data } else { Vec::new() };
            let mut entry = Entry::new(path, kind);
            if kind == EntryKind::Directory {
                entry.path.push(b'/');
            }
            if matches!(kind, EntryKind::HardLink | EntryKind::Symlink) {
                entry.link = link;
            }
            if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
                entry.device = Device { major, minor };
            }
            (entry.mode, entry.uid, entry.gid) = (mode, uid, gid);
            let scale = if far { 1000 } else { 1 };
            entry.mtime = Timestamp { seconds: i64::from(seconds) * scale, nanoseconds };
            entry.xattrs = xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
            entry.size = data.len() as u64;
            (entry, data)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn entries_round_trip(entries in prop::collection::vec(entry(), 0..6)) {
            let mut decoded = decode(&encode(&entries));
            for (entry, _) in &mut decoded {
                entry.offset = 0;
            }
            prop_assert_eq!(decoded, entries);
        }

        #[test]
        fn a_foreign_parser_agrees(entry in entry()) {
            let (mut entry, data) = entry;
            // It refuses xattr names that are not UTF-8.
            for xattr in &mut entry.xattrs {
                xattr.name = xattr.name.escape_ascii().to_string().into_bytes();
            }
            let tar = encode(&[(entry.clone(), data.clone())]);
            let mut parser = Parser::new(Limits::default());
            // It refuses negative times, and takes no others than whole seconds.
            parser.set_ignore_pax_errors(true);
            let event = parser.parse(&tar).unwrap();
            let ParseEvent::Entry { consumed, entry: seen } = event else {
                return Err(TestCaseError::fail(format!("{event:?}")));
            };
            prop_assert_eq!(&*seen.path, &entry.path[..]);
            prop_assert_eq!(seen.link_target.as_deref().unwrap_or_default(), &entry.link[..]);
            prop_assert_eq!(seen.mode, u32::from(entry.mode));
            prop_assert_eq!((seen.uid, seen.gid), (u64::from(entry.uid), u64::from(entry.gid)));
            prop_assert_eq!(seen.size, entry.size);
            prop_assert_eq!(seen.xattrs.len(), entry.xattrs.len());
            prop_assert_eq!(&tar[consumed..consumed + data.len()], &data[..]);
        }

        #[test]
        fn rubbish_never_panics(
            start in prop::collection::vec(entry(), 1..4),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        ) {
            let mut tar = encode(&start);
            for (at, byte) in changes {
                let at = at.index(tar.len());
                tar[at] = byte;
            }
            // Checksums are put right, so that the damage reaches what is behind them.
            for block in tar.chunks_exact_mut(BLOCK) {
                let mut header = header::Header(block.try_into().unwrap());
                if header.0[257..262] == *b"ustar" {
                    header.set_checksum();
                    block.copy_from_slice(&header.0);
                }
            }
            let mut decoder = Decoder::new(&tar[..]);
            while let Ok(Some(_)) = decoder.next_entry() {
                while let Ok(Some(_)) = decoder.next_chunk() {}
            }
        }
    }

    #[test]
    fn sparse_files_round_trip() {
        let runs = vec![
            Run {
                offset: 4096,
                length: 10,
            },
            Run {
                offset: 1 << 40,
                length: 4096,
            },
        ];
        for size in [(1 << 40) + 4096, 1 << 41] {
            let mut entry = Entry::new(b"d/sparse".to_vec(), EntryKind::File);
            entry.size = size;
            entry.runs = Some(runs.clone().into());
            let tar = encode(&[(entry.clone(), vec![b'x'; 4106])]);
            assert_eq!(decode(&tar), [(entry, vec![b'x'; 4106])]);
        }
    }

    #[test]
    fn sizes_past_eight_gibibytes_are_written() {
        let mut entry = Entry::new(b"big".to_vec(), EntryKind::File);
        entry.size = 1 << 40;
        let mut encoder = Encoder::new(Vec::new());
        encoder.start(&entry).unwrap();
        assert!(encoder.zeros(1).is_ok());
        assert!(encoder.finish().is_err());
    }
}
