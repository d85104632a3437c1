//! What packages seldom have and layers do: attributes, capabilities, devices, links, odd times.

use anyhow::Result;
use std::io::Write;
use tar::{Builder, EntryType, Header};

/// `cap_net_raw=ep` as the kernel stores it.
pub const CAPABILITY: &[u8] = &[
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Appends one entry of each odd kind below `odd/` and ends the archive.
///
/// # Errors
/// When `out` does not take the bytes.
pub fn write_odd_entries(out: impl Write) -> Result<()> {
    let mut tar = Builder::new(out);
    directory(&mut tar, "odd/")?;
    tar.append_pax_extensions([
        ("mtime", b"1234567890.123456789".as_slice()),
        ("SCHILY.xattr.security.capability", CAPABILITY),
        ("SCHILY.xattr.user.comment", b"from the layer"),
    ])?;
    file(
        &mut tar,
        "odd/capable",
        0o4755,
        b"#!/bin/sh\necho capable\n",
    )?;
    link(&mut tar, EntryType::Link, "odd/hard link", "odd/capable")?;
    link(&mut tar, EntryType::Symlink, "odd/short", "capable")?;
    link(
        &mut tar,
        EntryType::Symlink,
        "odd/long",
        &"../odd/".repeat(13),
    )?;
    link(
        &mut tar,
        EntryType::Link,
        "odd/link to a symlink",
        "odd/short",
    )?;
    special(&mut tar, "odd/null", EntryType::Char, (1, 3))?;
    special(&mut tar, "odd/disk", EntryType::Block, (259, 300_000))?;
    special(&mut tar, "odd/fifo", EntryType::Fifo, (0, 0))?;
    tar.append_pax_extensions([("mtime", b"-86400.5".as_slice())])?;
    file(&mut tar, "odd/before 1970", 0o600, b"old")?;
    tar.append_pax_extensions([("mtime", b"7258118400".as_slice())])?;
    file(&mut tar, "odd/after 2106", 0o644, b"new")?;
    file(&mut tar, "odd/empty", 0o400, b"")?;
    directory(&mut tar, "odd/folder/")?;
    file(
        &mut tar,
        "odd/folder/old",
        0o644,
        b"goes when its folder is replaced",
    )?;
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    file(&mut tar, "odd/large", 0o644, &large)?;
    file(&mut tar, "odd/zeros", 0o644, &vec![0; 5_000_000])?;
    let name = format!("odd/{}", "n".repeat(255));
    tar.append_pax_extensions([("path", name.as_bytes())])?;
    file(&mut tar, "odd/long name", 0o644, b"the name is longer")?;
    tar.finish()?;
    Ok(())
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(1000);
    header.set_gid(100);
    header.set_mtime(1_600_000_000);
    header.set_size(size);
    header
}

fn append(
    tar: &mut Builder<impl Write>,
    path: &str,
    mut header: Header,
    data: &[u8],
) -> Result<()> {
    header.set_path(path)?;
    header.set_cksum();
    Ok(tar.append(&header, data)?)
}

fn directory(tar: &mut Builder<impl Write>, path: &str) -> Result<()> {
    append(tar, path, header(EntryType::Directory, 0o1777, 0), &[])
}

fn file(tar: &mut Builder<impl Write>, path: &str, mode: u32, data: &[u8]) -> Result<()> {
    let size = data.len() as u64;
    append(tar, path, header(EntryType::Regular, mode, size), data)
}

fn link(tar: &mut Builder<impl Write>, kind: EntryType, path: &str, target: &str) -> Result<()> {
    let mut header = header(kind, 0o777, 0);
    header.set_link_name_literal(target)?;
    append(tar, path, header, &[])
}

fn special(
    tar: &mut Builder<impl Write>,
    path: &str,
    kind: EntryType,
    (major, minor): (u32, u32),
) -> Result<()> {
    let mut header = header(kind, 0o660, 0);
    header.set_device_major(major)?;
    header.set_device_minor(minor)?;
    append(tar, path, header, &[])
}
