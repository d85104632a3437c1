//! Kernel modules: which, in which order, and how they are packed.

use std::{
    fs,
    io::{self, Read as _},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    system::{finit_module, init_module},
};

use crate::log;

/// What the bridge needs: one path a line, in loading order; lines may be empty or comments.
pub(super) const FIRST: &str = "/lib/modules/load";

/// What else the machine needs.
pub(super) const LATER: &str = "/lib/modules/load-later";

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks the module itself.
const COMPRESSED_FILE: i32 = 4;

/// No module is larger; what is larger is no module.
const LARGEST: u64 = 256 << 20;

/// Loads the modules of a list. One that does not load is told, and the others are loaded.
pub(super) fn load(list: &str) -> usize {
    let list = match fs::read_to_string(list) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return 0,
        Err(error) => {
            log::console(format_args!("{list}: {error}"));
            return 0;
        }
    };
    let mut loaded = 0;
    for path in paths(&list) {
        match load_file(&path) {
            Ok(()) => loaded += 1,
            Err(error) => log::console(format_args!("module {}: {error}", path.display())),
        }
    }
    loaded
}

fn paths(list: &str) -> impl Iterator<Item = PathBuf> {
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| Path::new("/lib/modules").join(line))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Packing {
    None,
    Xz,
    Zstd,
    Gzip,
}

impl Packing {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Self::Zstd,
            [0x1F, 0x8B, ..] => Self::Gzip,
            _ => Self::None,
        }
    }
}

fn load_file(path: &Path) -> io::Result<()> {
    let mut file = fs::File::open(path)?;
    let mut magic = [0; 6];
    let size = file.read(&mut magic)?;
    let packing = Packing::of(magic.get(..size).unwrap_or_default());
    let flags = match packing {
        Packing::None => 0,
        Packing::Xz | Packing::Zstd | Packing::Gzip => COMPRESSED_FILE,
    };
    match finit_module(file.as_fd(), c"", flags) {
        // Already there, or built in.
        Ok(()) | Err(Errno::EXIST) => return Ok(()),
        Err(error) if packing == Packing::None => return Err(error.into()),
        // The kernel does not unpack, or not this kind: we do.
        Err(_) => {}
    }
    let image = unpack(packing, &fs::read(path)?)?;
    match init_module(&image, c"") {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn unpack(packing: Packing, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut image = Vec::new();
    match packing {
        Packing::None => return Ok(bytes.to_vec()),
        Packing::Gzip => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "gzip modules are unpacked only by the kernel",
            ));
        }
        Packing::Xz => {
            lzma_rust2::XzReader::new(bytes, true)
                .take(LARGEST)
                .read_to_end(&mut image)?;
        }
        Packing::Zstd => {
            ruzstd::decoding::StreamingDecoder::new(bytes)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?
                .take(LARGEST)
                .read_to_end(&mut image)?;
        }
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_list_is_read() {
        let list = "# modules\n6.1/kernel/a.ko\n\n/lib/modules/6.1/b.ko.xz \n";
        let paths: Vec<PathBuf> = paths(list).collect();
        assert_eq!(
            paths,
            [
                Path::new("/lib/modules/6.1/kernel/a.ko"),
                Path::new("/lib/modules/6.1/b.ko.xz")
            ]
        );
    }

    #[test]
    fn packed_modules_are_unpacked() {
        let content = b"a module ".repeat(10_000);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("module.ko");
        fs::write(&file, &content).unwrap();
        for (tool, packing) in [
            (&["xz", "-c", "--check=crc32"][..], Packing::Xz),
            (&["zstd", "-q", "-c"][..], Packing::Zstd),
        ] {
            let packed = Command::new(tool[0])
                .args(&tool[1..])
                .stdin(Stdio::from(fs::File::open(&file).unwrap()))
                .output()
                .unwrap()
                .stdout;
            assert_eq!(Packing::of(&packed), packing);
            assert_eq!(unpack(packing, &packed).unwrap(), content);
            assert!(unpack(packing, &packed[..packed.len() / 2]).is_err());
        }
        assert_eq!(Packing::of(b"\x7fELF"), Packing::None);
        assert_eq!(Packing::of(b""), Packing::None);
    }
}
