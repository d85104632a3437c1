//! Forges tars byte by byte, also such as no tool would write.

/// One header's fields, as text or raw bytes.
#[derive(Clone)]
pub struct Header {
    pub name: Vec<u8>,
    pub mode: Vec<u8>,
    pub uid: Vec<u8>,
    pub gid: Vec<u8>,
    pub size: Vec<u8>,
    pub mtime: Vec<u8>,
    pub kind: u8,
    pub link: Vec<u8>,
    pub magic: Vec<u8>,
    pub major: Vec<u8>,
    pub minor: Vec<u8>,
    /// What stands from byte 345 on.
    pub tail: Vec<u8>,
    /// Instead of the right checksum.
    pub checksum: Option<Vec<u8>>,
}

pub fn octal(value: u64, width: usize) -> Vec<u8> {
    format!("{value:0width$o}\0", width = width - 1).into_bytes()
}

pub fn base256(value: i128, width: usize) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let mut field = bytes[16 - width..].to_vec();
    field[0] |= 0x80;
    field
}

impl Header {
    pub fn new(name: impl AsRef<[u8]>, kind: u8, size: u64) -> Self {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        Self {
            name: name.as_ref().to_vec(),
            mode: octal(mode, 8),
            uid: octal(0, 8),
            gid: octal(0, 8),
            size: octal(size, 12),
            mtime: octal(0, 12),
            kind,
            link: Vec::new(),
            magic: b"ustar\x0000".to_vec(),
            major: octal(0, 8),
            minor: octal(0, 8),
            tail: Vec::new(),
            checksum: None,
        }
    }

    pub fn gnu(mut self) -> Self {
        self.magic = b"ustar  \0".to_vec();
        self
    }

    pub fn v7(mut self) -> Self {
        self.magic = Vec::new();
        self.major = Vec::new();
        self.minor = Vec::new();
        self
    }

    pub fn link(mut self, link: impl AsRef<[u8]>) -> Self {
        self.link = link.as_ref().to_vec();
        self
    }

    pub fn bytes(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, width: usize, field: &[u8]| {
            assert!(field.len() <= width, "field at {at} is too long");
            block[at..at + field.len()].copy_from_slice(field);
        };
        put(0, 100, &self.name);
        put(100, 8, &self.mode);
        put(108, 8, &self.uid);
        put(116, 8, &self.gid);
        put(124, 12, &self.size);
        put(136, 12, &self.mtime);
        put(148, 8, b"        ");
        put(156, 1, &[self.kind]);
        put(157, 100, &self.link);
        put(257, 8, &self.magic);
        put(329, 8, &self.major);
        put(337, 8, &self.minor);
        put(345, 167, &self.tail);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let text = format!("{sum:06o}\0 ").into_bytes();
        let text = self.checksum.clone().unwrap_or(text);
        block[148..148 + text.len()].copy_from_slice(&text);
        block
    }
}

/// A tar under construction.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn header(mut self, header: &Header) -> Self {
        self.0.extend(header.bytes());
        self
    }

    /// Content, filled up to a whole block.
    pub fn data(mut self, data: impl AsRef<[u8]>) -> Self {
        self.0.extend(data.as_ref());
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend(bytes.as_ref());
        self
    }

    pub fn file(self, name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        let data = data.as_ref();
        self.header(&Header::new(name, b'0', data.len() as u64))
            .data(data)
    }

    pub fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.header(&Header::new(name, b'5', 0))
    }

    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.header(&Header::new(name, b'2', 0).link(target))
    }

    pub fn hardlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.header(&Header::new(name, b'1', 0).link(target))
    }

    pub fn fifo(self, name: impl AsRef<[u8]>) -> Self {
        self.header(&Header::new(name, b'6', 0))
    }

    pub fn device(self, name: impl AsRef<[u8]>, kind: u8, major: u64, minor: u64) -> Self {
        self.header(&Header {
            major: octal(major, 8),
            minor: octal(minor, 8),
            ..Header::new(name, kind, 0)
        })
    }

    /// A PAX header; kind `x` for the next entry, `g` for all.
    pub fn pax(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        self.pax_raw(kind, &pax_records(records))
    }

    pub fn pax_raw(self, kind: u8, content: &[u8]) -> Self {
        self.header(&Header::new("pax", kind, content.len() as u64))
            .data(content)
    }

    pub fn long(self, kind: u8, name: impl AsRef<[u8]>) -> Self {
        let mut name = name.as_ref().to_vec();
        name.push(0);
        self.header(&Header::new("././@LongLink", kind, name.len() as u64).gnu())
            .data(name)
    }

    pub fn end(self) -> Vec<u8> {
        self.raw([0; 1024]).0
    }
}

pub fn pax_records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let payload = key.len() + value.len() + 3;
        let mut length = payload + payload.to_string().len();
        if payload + length.to_string().len() != length {
            length = payload + length.to_string().len();
        }
        content.extend(format!("{length} {key}=").into_bytes());
        content.extend(*value);
        content.push(b'\n');
    }
    content
}

/// Old GNU's sparse table: offsets and lengths.
pub fn gnu_sparse_tail(runs: &[(u64, u64)], extended: bool, real_size: u64) -> Vec<u8> {
    let mut tail = vec![0; 167];
    for (slot, (offset, length)) in runs.iter().enumerate() {
        let at = 41 + slot * 24;
        tail[at..at + 12].copy_from_slice(&octal(*offset, 12));
        tail[at + 12..at + 24].copy_from_slice(&octal(*length, 12));
    }
    tail[137] = u8::from(extended);
    tail[138..150].copy_from_slice(&octal(real_size, 12));
    tail
}
