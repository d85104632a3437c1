//! Writes an image down as lines of text, one a node, with what is usual left out.

use std::collections::HashMap;

use opengcs_ext4::{FileType, Inode, Reader, Timestamp};
use positioned_io::ReadAt;

pub fn show(bytes: &[u8]) -> String {
    bytes
        .escape_ascii()
        .to_string()
        .replace("\\'", "'")
        .replace("\\\"", "\"")
}

fn time(time: Timestamp) -> String {
    if time.nanoseconds == 0 {
        format!("{}", time.seconds)
    } else {
        format!("{}+{}", time.seconds, time.nanoseconds)
    }
}

fn content<R: ReadAt>(reader: &Reader<R>, inode: &Inode) -> String {
    let size = inode.size();
    let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
    let mut all = Vec::new();
    let mut position = 0;
    let mut buffer = vec![0; 1 << 20];
    // Holes of hundreds of gigabytes are not read.
    for segment in reader.segments(inode).unwrap() {
        let segment = segment.unwrap();
        assert_eq!(segment.offset, position, "segments have a gap");
        position += segment.length;
        if segment.kind == opengcs_ext4::SegmentKind::Hole && size > 1 << 20 {
            sum = (sum ^ segment.length).wrapping_mul(0x100_0000_01b3);
            continue;
        }
        let mut done = 0;
        while done < segment.length {
            let want = buffer.len().min((segment.length - done) as usize);
            let read = reader
                .read_at(inode, segment.offset + done, &mut buffer[..want])
                .unwrap();
            assert!(read > 0);
            for byte in &buffer[..read] {
                sum = (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
            if all.len() < 100 {
                all.extend(&buffer[..read]);
            }
            done += read as u64;
        }
    }
    assert_eq!(position, size, "segments do not cover the file");
    if size <= 40 {
        format!("={}", show(&all))
    } else {
        format!("={size}#{sum:016x}")
    }
}

/// The lines of an image, sorted by path; the root only when it is not mode 0755, root's, of 1970.
pub fn list<R: ReadAt>(source: R) -> Vec<String> {
    let reader = Reader::open(source).unwrap();
    let mut first: HashMap<u32, String> = HashMap::new();
    let mut lines = Vec::new();
    let mut stack = vec![(String::from("./"), reader.root())];
    while let Some((path, number)) = stack.pop() {
        let inode = reader.inode(number).unwrap();
        let metadata = reader.metadata(&inode).unwrap();
        let kind = inode.file_type();
        let mut line = path.clone();
        if kind != FileType::Directory && inode.links() > 1 {
            if let Some(first) = first.get(&number.0) {
                lines.push(format!("{path} =={first}"));
                continue;
            }
            first.insert(number.0, path.clone());
            line += &format!(" n{}", inode.links());
        }
        let usual = match kind {
            FileType::Directory => 0o755,
            _ => 0o644,
        };
        match kind {
            FileType::File if inode.size() > 0 => {
                line += &format!(" {}", content(&reader, &inode));
            }
            FileType::File => {}
            FileType::Directory => {
                let mut entries = reader.read_dir(&inode).unwrap();
                entries.sort_by(|a, b| b.name.cmp(&a.name));
                for entry in entries {
                    let child = reader.inode(entry.inode).unwrap();
                    let slash = if child.file_type() == FileType::Directory {
                        "/"
                    } else {
                        ""
                    };
                    let below = if path == "./" { "" } else { &path };
                    stack.push((format!("{below}{}{slash}", show(&entry.name)), entry.inode));
                }
            }
            FileType::Symlink => {
                line += &format!(" ->{}", show(&reader.read_link(&inode).unwrap()))
            }
            FileType::CharDevice | FileType::BlockDevice => {
                let device = inode.device().unwrap();
                let letter = if kind == FileType::CharDevice {
                    'c'
                } else {
                    'b'
                };
                line += &format!(" {letter}{}:{}", device.major, device.minor);
            }
            FileType::Fifo => line += " p",
            FileType::Socket => line += " s",
        }
        if metadata.mode != usual {
            line += &format!(" m{:o}", metadata.mode);
        }
        if (metadata.uid, metadata.gid) != (0, 0) {
            line += &format!(" u{}:{}", metadata.uid, metadata.gid);
        }
        if metadata.mtime != Timestamp::default() {
            line += &format!(" t{}", time(metadata.mtime));
        }
        let mut xattrs = metadata.xattrs;
        xattrs.sort();
        for xattr in xattrs {
            let value = if xattr.value.len() <= 40 {
                show(&xattr.value)
            } else {
                format!("#{}", xattr.value.len())
            };
            line += &format!(" {{{}={value}}}", show(&xattr.name));
        }
        if path != "./" || line != path {
            lines.push(line);
        }
    }
    lines
}
