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

use super::hypervisor::Hypervisor;
use crate::log;

/// What the bridge needs: one path a line, in loading order; lines may be empty or comments.
pub(super) const FIRST: &str = "/lib/modules/load";

/// What else the machine needs.
pub(super) const LATER: &str = "/lib/modules/load-later";

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks the module itself.
const COMPRESSED_FILE: i32 = 4;

/// What a signed module ends with, after a record of 12 bytes whose last four are the signature's length.
const SIGNED: &[u8] = b"~Module signature appended~\n";
const SIGNATURE_RECORD: usize = 12;

/// Behind a list's name: the list for Hyper-V.
const FOR_HYPERV: &str = "-hyperv";

/// No module is larger; what is larger is no module.
const LARGEST: u64 = 256 << 20;

/// Loads the modules of a list. One that does not load is told, and the others are loaded.
pub(super) fn load(list: &str, hypervisor: Hypervisor) -> usize {
    let list = match hypervisor {
        Hypervisor::HyperV => format!("{list}{FOR_HYPERV}"),
        Hypervisor::Emulation | Hypervisor::Other => list.to_owned(),
    };
    let list = match fs::read_to_string(&list) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return 0,
        Err(error) => {
            log::console(format_args!("{list}: {error}"));
            return 0;
        }
    };
    let mut loaded = 0;
    for path in paths(&list) {
        // There the kernel takes longer to check the signature of a module than to load it.
        if hypervisor == Hypervisor::Emulation && load_unsigned(&path).is_ok() {
            loaded += 1;
            continue;
        }
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

/// Loads a module without its signature, which a kernel takes unless it was told to insist on one.
fn load_unsigned(path: &Path) -> io::Result<()> {
    let mut image = fs::read(path)?;
    image.truncate(unsigned(&image).len());
    match init_module(&image, c"") {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A module without its signature, if it has one.
fn unsigned(image: &[u8]) -> &[u8] {
    let plain = image.strip_suffix(SIGNED).and_then(|rest| {
        let (rest, length) = rest.split_last_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let before = SIGNATURE_RECORD - 4;
        rest.get(..rest.len().checked_sub(length.checked_add(before)?)?)
    });
    plain.unwrap_or(image)
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
    fn a_signature_is_cut_off_and_nothing_else() {
        let module = b"\x7fELF and so on";
        let signed = |length: u32| {
            let mut image = module.to_vec();
            image.extend(b"signature");
            image.extend([0, 0, 2, 0, 0, 0, 0, 0]);
            image.extend(length.to_be_bytes());
            image.extend(SIGNED);
            image
        };
        assert_eq!(unsigned(&signed(9)), module);
        for odd in [
            signed(1000),
            signed(u32::MAX),
            SIGNED.to_vec(),
            module.to_vec(),
        ] {
            assert_eq!(unsigned(&odd), odd);
        }
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
