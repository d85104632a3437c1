//! One EFI program of kernel, initrd and kernel arguments: a *unified kernel image*.
//!
//! Firmware starts `EFI/BOOT/BOOTX64.EFI` without any arguments, and the kernel alone would find neither
//! its initrd nor a console. The stub of systemd (`linuxx64.efi.stub`) finds them in sections of its own
//! file, which are appended here. See the PE format specification, "COFF File Header" and "Section
//! Table", and the UAPI group's specification "Unified Kernel Image".

use crate::error::{Error, Result};

/// Bytes of one section header.
const SECTION_HEADER: usize = 40;
/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`.
const DATA_TO_READ: u32 = 0x4000_0040;
/// `IMAGE_FILE_MACHINE_AMD64`.
const X86_64: u16 = 0x8664;
/// PE32+, the 64-bit kind.
const PE32_PLUS: u16 = 0x20b;
/// Firmware maps sections by pages.
const PAGE: u32 = 4096;

/// Where the fields are that change, from the beginning of the stub.
struct Layout {
    /// The COFF header.
    coff: usize,
    optional: usize,
    sections: usize,
    count: u16,
    file_alignment: u32,
    section_alignment: u32,
    headers: u32,
    /// The end of the last section in memory.
    end: u32,
}

fn bad(what: &str) -> Error {
    Error::invalid(format!("the EFI stub cannot be used: {what}"))
        .hint("take linuxx64.efi.stub of the package systemd-boot-efi")
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes
        .get(at..at.saturating_add(N))
        .and_then(|field| field.try_into().ok())
        .ok_or_else(|| bad("it is cut short"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    number(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    number(bytes, at).map(u32::from_le_bytes)
}

fn place(value: u32) -> Result<usize> {
    usize::try_from(value).map_err(|_| bad("its headers are damaged"))
}

fn layout(stub: &[u8]) -> Result<Layout> {
    let signature = place(u32_at(stub, 0x3c)?)?;
    if !stub.starts_with(b"MZ") || number::<4>(stub, signature)? != *b"PE\0\0" {
        return Err(bad("it is no EFI program"));
    }
    let coff = signature.saturating_add(4);
    let optional = coff.saturating_add(20);
    if u16_at(stub, coff)? != X86_64 || u16_at(stub, optional)? != PE32_PLUS {
        return Err(bad("it is not for x86-64"));
    }
    let count = u16_at(stub, coff + 2)?;
    let sections = optional.saturating_add(usize::from(u16_at(stub, coff + 16)?));
    let mut end = 0;
    for index in 0..usize::from(count) {
        let header = sections + index * SECTION_HEADER;
        let size = u32_at(stub, header + 8)?;
        let address = u32_at(stub, header + 12)?;
        end = end.max(
            address
                .checked_add(size)
                .ok_or_else(|| bad("a section wraps"))?,
        );
    }
    let found = Layout {
        coff,
        optional,
        sections,
        count,
        section_alignment: u32_at(stub, optional + 32)?.max(PAGE),
        file_alignment: u32_at(stub, optional + 36)?,
        headers: u32_at(stub, optional + 60)?,
        end,
    };
    let sane = |alignment: u32| alignment.is_power_of_two() && alignment <= 1 << 20;
    if !sane(found.file_alignment) || !sane(found.section_alignment) {
        return Err(bad("its alignment makes no sense"));
    }
    Ok(found)
}

/// Appends `sections` to the stub, in their order. Names have at most eight bytes.
pub(super) fn unify(stub: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let found = layout(stub)?;
    let too_large = || bad("the whole would be larger than a program may be");
    let first = found.sections + usize::from(found.count) * SECTION_HEADER;
    let last = first + sections.len() * SECTION_HEADER;
    // The headers of new sections need room before the first old one.
    if last > place(found.headers)? || !stub.get(first..last).is_some_and(is_blank) {
        return Err(bad("its header has no room for more sections"));
    }
    let mut image = stub.to_vec();
    let mut address = align(found.end, found.section_alignment).ok_or_else(too_large)?;
    let mut added = 0_u32;
    for (index, (name, content)) in sections.iter().enumerate() {
        let size = u32::try_from(content.len()).map_err(|_| too_large())?;
        let at = u32::try_from(image.len()).map_err(|_| too_large())?;
        let at = align(at, found.file_alignment).ok_or_else(too_large)?;
        let stored = align(size, found.file_alignment).ok_or_else(too_large)?;
        image.resize(place(at)?, 0);
        image.extend_from_slice(content);
        image.resize(place(at)? + place(stored)?, 0);
        let mut header = [0; SECTION_HEADER];
        for (slot, byte) in header.iter_mut().zip(name.bytes().take(8)) {
            *slot = byte;
        }
        for (offset, value) in [
            (8, size),
            (12, address),
            (16, stored),
            (20, at),
            (36, DATA_TO_READ),
        ] {
            header[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        let slot = first + index * SECTION_HEADER;
        image[slot..slot + SECTION_HEADER].copy_from_slice(&header);
        added = added.checked_add(stored).ok_or_else(too_large)?;
        address = address
            .checked_add(size)
            .and_then(|end| align(end, found.section_alignment))
            .ok_or_else(too_large)?;
    }
    let count =
        u16::try_from(usize::from(found.count) + sections.len()).map_err(|_| too_large())?;
    image[found.coff + 2..found.coff + 4].copy_from_slice(&count.to_le_bytes());
    let data = u32_at(stub, found.optional + 8)?.saturating_add(added);
    for (offset, value) in [
        (8, data),     // SizeOfInitializedData
        (56, address), // SizeOfImage
        (64, 0),       // CheckSum: none
    ] {
        let at = found.optional + offset;
        image[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    Ok(image)
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn align(value: u32, to: u32) -> Option<u32> {
    value.checked_next_multiple_of(to)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A program of one section, with room for more.
    pub(crate) fn fake_stub() -> Vec<u8> {
        let mut stub = vec![0; 0x600];
        stub[..2].copy_from_slice(b"MZ");
        stub[0x3c] = 0x80;
        stub[0x80..0x84].copy_from_slice(b"PE\0\0");
        stub[0x84..0x86].copy_from_slice(&X86_64.to_le_bytes());
        stub[0x86] = 1;
        stub[0x94] = 240;
        let optional = 0x98;
        stub[optional..optional + 2].copy_from_slice(&PE32_PLUS.to_le_bytes());
        stub[optional + 32..optional + 36].copy_from_slice(&4096_u32.to_le_bytes());
        stub[optional + 36..optional + 40].copy_from_slice(&512_u32.to_le_bytes());
        stub[optional + 60..optional + 64].copy_from_slice(&0x400_u32.to_le_bytes());
        let section = optional + 240;
        stub[section..section + 5].copy_from_slice(b".text");
        stub[section + 8..section + 12].copy_from_slice(&0x200_u32.to_le_bytes());
        stub[section + 12..section + 16].copy_from_slice(&0x1000_u32.to_le_bytes());
        stub
    }

    #[test]
    fn sections_follow_each_other_in_the_file_and_in_memory() {
        let image = unify(
            &fake_stub(),
            &[(".cmdline", b"quiet"), (".linux", &[7; 5000])],
        )
        .unwrap();
        let found = layout(&image).unwrap();
        assert_eq!(found.count, 3);
        let header = |index: usize, offset: usize| {
            u32_at(&image, found.sections + index * SECTION_HEADER + offset).unwrap()
        };
        assert_eq!(
            (header(1, 8), header(1, 12), header(1, 20)),
            (5, 0x2000, 0x600)
        );
        assert_eq!(
            (header(2, 8), header(2, 12), header(2, 20)),
            (5000, 0x3000, 0x800)
        );
        assert_eq!(&image[0x600..0x605], b"quiet");
        assert_eq!(image.len(), 0x800 + 5120);
        assert_eq!(u32_at(&image, found.optional + 56).unwrap(), 0x5000);
    }

    #[test]
    fn what_is_no_stub_is_refused() {
        let stub = fake_stub();
        assert!(unify(b"#!/bin/sh", &[]).is_err());
        for cut in 0..stub.len() {
            // Any answer but a panic.
            let _ = unify(&stub[..cut], &[(".linux", b"x")]);
        }
        let mut full = stub.clone();
        full[0x98 + 60..0x98 + 64].copy_from_slice(&0x1b0_u32.to_le_bytes());
        let error = unify(&full, &[(".linux", b"x")]).unwrap_err();
        assert!(error.to_string().contains("no room"), "{error}");
        let mut arm = stub;
        arm[0x84] = 0;
        assert!(unify(&arm, &[]).unwrap_err().to_string().contains("x86-64"));
    }
}
