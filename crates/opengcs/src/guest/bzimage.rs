//! Which Linux a kernel file holds, read from the file alone.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};

/// Offset of the setup header's magic, `HdrS` (Documentation/arch/x86/boot.rst).
const HEADER_MAGIC: usize = 0x202;
/// Offset of the pointer to the version text, less 0x200 (u16).
const KERNEL_VERSION: usize = 0x20e;
/// The setup header ends well before this.
const HEAD: usize = 0x400;
const MAX_VERSION: usize = 256;

/// What is known of a kernel file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFile {
    /// The release, as `uname -r` will say it; `None` where the form of the file does not tell.
    pub release: Option<String>,
}

/// Looks at a kernel file.
///
/// # Errors
/// The file cannot be read, or it is no kernel that a VM could start: the error says what it is
/// instead where that is plain.
pub fn inspect(path: &Path) -> Result<KernelFile> {
    let mut file = File::open(path).map_err(|error| Error::io("open the kernel", path, error))?;
    let mut head = Vec::new();
    (&mut file)
        .take(HEAD as u64)
        .read_to_end(&mut head)
        .map_err(|error| Error::io("read the kernel", path, error))?;
    match version_offset(&head) {
        Form::BzImage(offset) => {
            let mut text = Vec::new();
            if offset != 0 {
                file.seek(SeekFrom::Start(offset))
                    .and_then(|_| file.take(MAX_VERSION as u64).read_to_end(&mut text))
                    .map_err(|error| Error::io("read the kernel", path, error))?;
            }
            Ok(KernelFile {
                release: release(&text),
            })
        }
        Form::Other => Ok(KernelFile { release: None }),
        Form::NoKernel(what) => Err(Error::invalid(format!(
            "{} is not a Linux kernel: {what}",
            path.display()
        ))
        .hint("give a vmlinuz file, or get one with `opengcs kernel install`")),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Form {
    /// x86 boot protocol; where its version text is in the file, 0 = nowhere.
    BzImage(u64),
    /// Something a machine may start, which does not say its release at a known place.
    Other,
    NoKernel(&'static str),
}

fn version_offset(head: &[u8]) -> Form {
    if head.is_empty() {
        return Form::NoKernel("the file is empty");
    }
    if head.get(HEADER_MAGIC..HEADER_MAGIC + 4) == Some(b"HdrS") {
        let pointer = match head.get(KERNEL_VERSION..KERNEL_VERSION + 2) {
            Some(&[low, high]) => u64::from(u16::from_le_bytes([low, high])),
            _ => 0,
        };
        return Form::BzImage(if pointer == 0 { 0 } else { pointer + 0x200 });
    }
    // An uncompressed ELF kernel, arm64's Image ("ARM\x64" at 0x38), EFI zboot and other PE images.
    if head.starts_with(b"\x7fELF")
        || head.get(0x38..0x3c) == Some(b"ARM\x64")
        || head.starts_with(b"MZ")
    {
        return Form::Other;
    }
    if head.starts_with(b"!<arch>") {
        return Form::NoKernel("it is a Debian package");
    }
    if head.starts_with(&[0x1f, 0x8b]) {
        return Form::NoKernel("it is a gzip file");
    }
    if head.starts_with(b"070701") {
        return Form::NoKernel("it is a cpio archive, as an initrd is");
    }
    Form::NoKernel("it has no kernel's header")
}

fn release(text: &[u8]) -> Option<String> {
    let word = text
        .split(|byte| *byte == 0 || byte.is_ascii_whitespace())
        .next()?;
    let word = std::str::from_utf8(word).ok()?;
    let plausible = word.starts_with(|c: char| c.is_ascii_digit())
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-+~".contains(c));
    plausible.then(|| word.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The smallest file that passes for a bzImage of `release`.
    pub(crate) fn fake_kernel(release: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x300];
        bytes[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        bytes[KERNEL_VERSION..KERNEL_VERSION + 2].copy_from_slice(&0x100u16.to_le_bytes());
        bytes.extend_from_slice(release.as_bytes());
        bytes.extend_from_slice(b" (someone) #1 SMP\0more");
        bytes
    }

    fn look(bytes: &[u8]) -> Result<KernelFile> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        std::fs::write(&path, bytes).unwrap();
        inspect(&path)
    }

    #[test]
    fn a_bzimage_tells_its_release() {
        let found = look(&fake_kernel("6.1.0-56-cloud-amd64")).unwrap();
        assert_eq!(found.release.as_deref(), Some("6.1.0-56-cloud-amd64"));
    }

    #[test]
    fn a_version_pointer_past_the_end_gives_no_release() {
        let mut bytes = fake_kernel("6.1.0");
        bytes[KERNEL_VERSION..KERNEL_VERSION + 2].copy_from_slice(&0xfff0u16.to_le_bytes());
        assert_eq!(look(&bytes).unwrap().release, None);
    }

    #[test]
    fn what_is_no_kernel_is_refused_by_name() {
        for (bytes, word) in [
            (&b""[..], "empty"),
            (b"!<arch>\ndebian-binary", "Debian package"),
            (b"070701000", "cpio"),
            (b"hello", "no kernel's header"),
        ] {
            let error = look(bytes).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
