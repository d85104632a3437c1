//! The tree of a guest's root: the same in an initrd and on a boot disk.

use std::io::{self, Write};

use super::{
    Contents, GuestModule, LOAD_FILE, LOAD_HYPERV_FILE, LOAD_LATER_FILE, LOAD_LATER_HYPERV_FILE,
};
use crate::guest::cpio;

/// Names under which the agent's binary is found in the guest's `/bin`, beside `gcs`.
const AGENT_NAMES: &[&str] = &["exportSandbox", "tar2vhd", "vhd2tar"];

/// The folders of every tree.
const FOLDERS: &[&str] = &[
    "bin",
    "dev",
    "etc",
    "lib",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "usr",
    "usr/share",
    "var",
];

/// What a tree is written to. Names have no leading slash.
pub(crate) trait Tree {
    /// A folder.
    fn directory(&mut self, name: &str, permissions: u32) -> io::Result<()>;
    /// A regular file.
    fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> io::Result<()>;
    /// A symbolic link.
    fn symlink(&mut self, name: &str, target: &str) -> io::Result<()>;
    /// A character device with its numbers.
    fn character_device(
        &mut self,
        name: &str,
        permissions: u32,
        numbers: (u32, u32),
    ) -> io::Result<()>;
}

impl<W: Write> Tree for cpio::Writer<W> {
    fn directory(&mut self, name: &str, permissions: u32) -> io::Result<()> {
        Self::directory(self, name, permissions)
    }

    fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        Self::file(self, name, permissions, content)
    }

    fn symlink(&mut self, name: &str, target: &str) -> io::Result<()> {
        Self::symlink(self, name, target)
    }

    fn character_device(
        &mut self,
        name: &str,
        permissions: u32,
        numbers: (u32, u32),
    ) -> io::Result<()> {
        Self::character_device(self, name, permissions, numbers)
    }
}

/// Writes the whole tree of a guest, parents before their children.
pub(crate) fn write(contents: &Contents, tree: &mut impl Tree) -> io::Result<()> {
    for folder in FOLDERS {
        tree.directory(folder, 0o755)?;
    }
    tree.directory("tmp", 0o1777)?;
    for (link, target) in [
        ("sbin", "bin"),
        ("usr/bin", "../bin"),
        ("usr/sbin", "../bin"),
        ("var/run", "../run"),
        ("var/tmp", "../tmp"),
    ] {
        tree.symlink(link, target)?;
    }
    // The kernel opens the console for the first process before anything could make the node.
    tree.character_device("dev/console", 0o600, (5, 1))?;
    tree.character_device("dev/null", 0o666, (1, 3))?;
    tree.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    tree.file("etc/group", 0o644, b"root:x:0:\n")?;
    tree.file("bin/gcs", 0o755, &contents.agent)?;
    tree.symlink("init", "/bin/gcs")?;
    for name in AGENT_NAMES {
        tree.symlink(&format!("bin/{name}"), "gcs")?;
    }
    if let Some(busybox) = &contents.busybox {
        tree.file("bin/busybox", 0o755, &busybox.program)?;
        let mut names: Vec<_> = busybox
            .applets
            .iter()
            .filter(|name| *name != "busybox" && *name != "gcs" && !name.contains('/'))
            .collect();
        names.sort();
        names.dedup();
        for name in names {
            if !AGENT_NAMES.contains(&name.as_str()) {
                tree.symlink(&format!("bin/{name}"), "busybox")?;
            }
        }
    }
    write_modules(contents, tree)?;
    write_files(contents, tree)
}

fn write_files(contents: &Contents, tree: &mut impl Tree) -> io::Result<()> {
    let mut made: std::collections::BTreeSet<&str> = FOLDERS.iter().copied().collect();
    for file in &contents.files {
        for (end, _) in file.path.match_indices('/') {
            let folder = file.path.get(..end).unwrap_or_default();
            if made.insert(folder) {
                tree.directory(folder, 0o755)?;
            }
        }
        tree.file(&file.path, file.mode, &file.content)?;
    }
    Ok(())
}

fn write_modules(contents: &Contents, tree: &mut impl Tree) -> io::Result<()> {
    tree.directory("lib/modules", 0o755)?;
    let root = format!("lib/modules/{}", contents.release);
    tree.directory(&root, 0o755)?;
    let mut folders = std::collections::BTreeSet::new();
    for module in &contents.modules {
        let path = format!("{root}/{}", module.path);
        for (end, _) in module.path.match_indices('/') {
            let folder = format!("{root}/{}", &module.path[..end]);
            if folders.insert(folder.clone()) {
                tree.directory(&folder, 0o755)?;
            }
        }
        tree.file(&path, 0o644, &module.content)?;
    }
    type Wanted = fn(&GuestModule) -> bool;
    let lists: [(&str, Wanted); 4] = [
        (LOAD_FILE, |module| module.qemu && module.first),
        (LOAD_LATER_FILE, |module| module.qemu && !module.first),
        (LOAD_HYPERV_FILE, |module| module.hyperv && module.first),
        (LOAD_LATER_HYPERV_FILE, |module| {
            module.hyperv && !module.first
        }),
    ];
    for (file, wanted) in lists {
        let list: String = contents
            .modules
            .iter()
            .filter(|module| wanted(module))
            .map(|module| format!("/{root}/{}\n", module.path))
            .collect();
        tree.file(file, 0o644, list.as_bytes())?;
    }
    Ok(())
}
