//! What an ELF file says of itself: which loader and libraries it needs, and a kernel module's `.modinfo`.

/// A little-endian 64-bit ELF file's bytes, looked at without trust.
pub(super) struct Elf<'a> {
    bytes: &'a [u8],
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;

const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// One of the parts that are loaded, or that say how.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

impl<'a> Elf<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        // EI_CLASS 2 = 64 bits, EI_DATA 1 = little-endian.
        bytes
            .starts_with(b"\x7fELF\x02\x01")
            .then_some(Self { bytes })
    }

    /// Whether the program starts without a dynamic loader. `None` when the headers make no sense.
    pub(super) fn is_static(&self) -> Option<bool> {
        let segments = self.segments()?;
        Some(!segments.iter().any(|segment| segment.kind == PT_INTERP))
    }

    /// The path of the dynamic loader that it names, if it names one.
    pub(super) fn interpreter(&self) -> Option<Option<String>> {
        let segments = self.segments()?;
        let Some(segment) = segments.iter().find(|segment| segment.kind == PT_INTERP) else {
            return Some(None);
        };
        let bytes = self.range(segment.offset, segment.size)?;
        Some(Some(text(bytes)?))
    }

    /// The names of the libraries that it needs.
    pub(super) fn needed(&self) -> Option<Vec<String>> {
        let segments = self.segments()?;
        let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else {
            return Some(Vec::new());
        };
        let (mut offsets, mut names) = (Vec::new(), None);
        for index in 0..dynamic.size / 16 {
            let at = dynamic.offset.checked_add(index.checked_mul(16)?)?;
            let value = self.u64(at.checked_add(8)?)?;
            match self.u64(at)? {
                DT_NULL => break,
                DT_NEEDED => offsets.push(value),
                DT_STRTAB => names = Some(value),
                _ => {}
            }
        }
        if offsets.is_empty() {
            return Some(Vec::new());
        }
        let address = names?;
        let load = segments.iter().find(|segment| {
            let end = segment.address.checked_add(segment.size);
            segment.kind == PT_LOAD
                && segment.address <= address
                && end.is_some_and(|end| address < end)
        })?;
        let table = load.offset.checked_add(address - load.address)?;
        offsets
            .into_iter()
            .map(|offset| {
                let at = usize::try_from(table.checked_add(offset)?).ok()?;
                text(self.bytes.get(at..)?)
            })
            .collect()
    }

    fn segments(&self) -> Option<Vec<Segment>> {
        let table = self.u64(32)?;
        let entry = u64::from(self.u16(54)?);
        let count = u64::from(self.u16(56)?);
        (0..count)
            .map(|index| {
                let at = table.checked_add(index.checked_mul(entry)?)?;
                Some(Segment {
                    kind: self.u32(at)?,
                    offset: self.u64(at.checked_add(8)?)?,
                    address: self.u64(at.checked_add(16)?)?,
                    size: self.u64(at.checked_add(32)?)?,
                })
            })
            .collect()
    }

    fn range(&self, offset: u64, size: u64) -> Option<&'a [u8]> {
        let offset = usize::try_from(offset).ok()?;
        let size = usize::try_from(size).ok()?;
        self.bytes.get(offset..offset.checked_add(size)?)
    }

    /// The bytes of the section called `name`.
    pub(super) fn section(&self, name: &[u8]) -> Option<&'a [u8]> {
        let table = self.u64(40)?;
        let entry = u64::from(self.u16(58)?);
        let count = u64::from(self.u16(60)?);
        let names_index = u64::from(self.u16(62)?);
        let header = |index: u64| table.checked_add(index.checked_mul(entry)?);
        let names = self.section_bytes(header(names_index)?)?;
        for index in 0..count {
            let at = header(index)?;
            let offset = usize::try_from(self.u32(at)?).ok()?;
            let found = names.get(offset..)?.split(|byte| *byte == 0).next()?;
            if found == name {
                return self.section_bytes(at);
            }
        }
        None
    }

    fn section_bytes(&self, header: u64) -> Option<&'a [u8]> {
        let offset = usize::try_from(self.u64(header.checked_add(24)?)?).ok()?;
        let size = usize::try_from(self.u64(header.checked_add(32)?)?).ok()?;
        self.bytes.get(offset..offset.checked_add(size)?)
    }

    fn field<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let at = usize::try_from(at).ok()?;
        self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u16(&self, at: u64) -> Option<u16> {
        self.field(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: u64) -> Option<u32> {
        self.field(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: u64) -> Option<u64> {
        self.field(at).map(u64::from_le_bytes)
    }
}

/// A text that ends with a NUL.
fn text(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next()?;
    String::from_utf8(text.to_vec()).ok()
}

/// The values of `key` in a module's `.modinfo`, which is `key=value` texts ended by NULs.
pub(super) fn modinfo<'a>(section: &'a [u8], key: &'a str) -> impl Iterator<Item = &'a str> {
    section
        .split(|byte| *byte == 0)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .filter_map(move |text| text.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A module with nothing but a `.modinfo` section.
    pub(in crate::guest) fn fake_module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let modinfo_at = bytes.len();
        bytes.extend_from_slice(modinfo);
        let names_at = bytes.len();
        bytes.extend_from_slice(names);
        let table = bytes.len();
        for (name, offset, size) in [
            (0u32, 0, 0),
            (1, modinfo_at, modinfo.len()),
            (10, names_at, names.len()),
        ] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            bytes.extend_from_slice(&header);
        }
        bytes[40..48].copy_from_slice(&(table as u64).to_le_bytes());
        bytes[58..60].copy_from_slice(&64u16.to_le_bytes());
        bytes[60..62].copy_from_slice(&3u16.to_le_bytes());
        bytes[62..64].copy_from_slice(&2u16.to_le_bytes());
        bytes
    }

    #[test]
    fn modinfo_values_are_found() {
        let bytes = fake_module(b"depends=a,b\0softdep=pre: c\0name=x\0");
        let elf = Elf::parse(&bytes).unwrap();
        let section = elf.section(b".modinfo").unwrap();
        assert_eq!(modinfo(section, "depends").collect::<Vec<_>>(), ["a,b"]);
        assert_eq!(modinfo(section, "name").collect::<Vec<_>>(), ["x"]);
        assert_eq!(elf.section(b".text"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn loader_and_libraries_are_those_that_the_system_tells() {
        let program = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&program).unwrap();
        let elf = Elf::parse(&bytes).unwrap();
        let interpreter = elf.interpreter().unwrap().unwrap();
        let needed = elf.needed().unwrap();
        // The loader itself lists what it would load.
        let listed = std::process::Command::new(&interpreter)
            .arg("--list")
            .arg(&program)
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(!needed.is_empty());
        for name in needed {
            let file = name.rsplit('/').next().unwrap();
            assert!(listed.contains(file), "{name} is not in {listed}");
        }
    }

    #[test]
    fn damaged_files_never_panic() {
        let bytes = fake_module(b"depends=a,b\0");
        for position in 0..bytes.len() {
            for value in [0, 0x7f, 0xff] {
                let mut flipped = bytes.clone();
                flipped[position] = value;
                if let Some(elf) = Elf::parse(&flipped) {
                    let _ = (
                        elf.section(b".modinfo"),
                        elf.is_static(),
                        elf.needed(),
                        elf.interpreter(),
                    );
                }
                if let Some(elf) = Elf::parse(&flipped[..position]) {
                    let _ = (
                        elf.section(b".modinfo"),
                        elf.is_static(),
                        elf.needed(),
                        elf.interpreter(),
                    );
                }
            }
        }
    }
}
