//! Which kernel modules the guest needs, where they are, and in what order they load.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::elf::{self, Elf};
use crate::error::{Error, ErrorKind, Result};

/// What a utility VM needs of its kernel under QEMU beside [`DISK_MODULES`], in the order in which it should
/// come up.
pub const QEMU_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_mmio",
    "vmw_vsock_virtio_transport",
    "virtio_scsi",
];

/// What it needs under Hyper-V beside them. The kernel takes one transport of vsock to the host, so that these
/// and QEMU's are never loaded together.
pub const HYPERV_MODULES: &[&str] = &["hv_vmbus", "hv_storvsc", "hv_sock", "hv_utils"];

/// What it needs for disks and file systems, wherever it runs.
pub const DISK_MODULES: &[&str] = &["sd_mod", "overlay", "crc32c_generic", "ext4", "dm_verity"];

/// Of all these, what the bridge needs: the agent dials as soon as they are loaded. Where it comes by
/// another transport, it waits for that.
pub const FIRST_MODULES: &[&str] = &[
    "virtio_pci",
    "vmw_vsock_virtio_transport",
    "hv_vmbus",
    "hv_sock",
];

/// Without these a VM cannot come up or do its work; the others may be missing.
pub const REQUIRED_MODULES: &[&str] = &[
    "virtio_pci",
    "vmw_vsock_virtio_transport",
    "virtio_scsi",
    "sd_mod",
    "overlay",
    "ext4",
];

/// No module is near this size; larger ones are not read.
const MAX_MODULE: u64 = 64 << 20;

/// One module as a kernel's package holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Name as the kernel says it, with underscores.
    pub name: String,
    /// Path under `modules/<release>`, with `/`.
    pub path: String,
    /// Names of what must be loaded before it.
    pub needs: Vec<String>,
}

/// The order in which to load, so that each module comes after what it needs.
///
/// `find` looks a module up by its name; `Ok(None)` means that this kernel has none of the name.
/// Names in `builtin` need no loading. Modules in `required` must be one or the other.
///
/// # Errors
/// A required module, or something that a found module needs, is nowhere; or `find` fails.
pub fn load_order(
    wanted: &[&str],
    required: &[&str],
    builtin: &BTreeSet<String>,
    mut find: impl FnMut(&str) -> Result<Option<Module>>,
) -> Result<Vec<Module>> {
    let mut order = Vec::new();
    let mut done: BTreeSet<String> = BTreeSet::new();
    for name in wanted {
        let name = canonical(name);
        // A stack of our own: (module, how many of its needs are settled).
        let mut stack: Vec<(Module, usize)> = Vec::new();
        let mut next = Some((name.clone(), None::<String>));
        loop {
            if let Some((name, needed_by)) = next.take() {
                let on_stack = stack.iter().any(|(module, _)| module.name == name);
                if !done.contains(&name) && !builtin.contains(&name) && !on_stack {
                    match find(&name)? {
                        Some(module) => stack.push((module, 0)),
                        None => {
                            if let Some(by) = needed_by {
                                return Err(missing(&format!("{name}, which {by} needs")));
                            }
                            if required.iter().any(|one| canonical(one) == name) {
                                return Err(missing(&name));
                            }
                        }
                    }
                }
            }
            let Some((module, settled)) = stack.last_mut() else {
                break;
            };
            if let Some(need) = module.needs.get(*settled) {
                next = Some((canonical(need), Some(module.name.clone())));
                *settled += 1;
            } else if let Some((module, _)) = stack.pop() {
                done.insert(module.name.clone());
                order.push(module);
            }
        }
    }
    Ok(order)
}

fn missing(what: &str) -> Error {
    Error::not_found(format!("the kernel has no module {what}"))
        .hint("use another kernel: `opengcs kernel install` gets the distribution's")
}

/// A kernel's `modules/<release>` folder.
#[derive(Debug)]
pub struct ModuleFolder {
    root: PathBuf,
    builtin: BTreeSet<String>,
    paths: BTreeMap<String, String>,
    /// From modules.dep; packages are shipped without it, it is made when they are installed.
    needs: Option<BTreeMap<String, Vec<String>>>,
}

impl ModuleFolder {
    /// Reads the folder's lists.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(root: &Path) -> Result<Self> {
        let builtin = match fs::read_to_string(root.join("modules.builtin")) {
            Ok(text) => text.lines().map(name_of).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => {
                return Err(Error::io("read", &root.join("modules.builtin"), error));
            }
        };
        let listed = root.join("modules.dep");
        let (paths, needs) = match fs::read_to_string(&listed) {
            Ok(text) => {
                let (paths, needs) = parse_modules_dep(&text);
                (paths, Some(needs))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut paths = BTreeMap::new();
                walk(root, "kernel", &mut paths, 0)?;
                (paths, None)
            }
            Err(error) => return Err(Error::io("read", &listed, error)),
        };
        Ok(Self {
            root: root.to_owned(),
            builtin,
            paths,
            needs,
        })
    }

    /// The order in which to load `wanted`; see [`load_order`].
    ///
    /// # Errors
    /// As there, or a module's file cannot be read.
    pub fn load_order(&self, wanted: &[&str], required: &[&str]) -> Result<Vec<Module>> {
        load_order(wanted, required, &self.builtin, |name| self.find(name))
    }

    fn find(&self, name: &str) -> Result<Option<Module>> {
        let Some(path) = self.paths.get(name) else {
            return Ok(None);
        };
        let needs = match &self.needs {
            Some(listed) => listed.get(name).cloned().unwrap_or_default(),
            None => declared_needs(&self.read(path)?, &self.root.join(path))?,
        };
        Ok(Some(Module {
            name: name.to_owned(),
            path: path.clone(),
            needs,
        }))
    }

    /// A module's content, decompressed.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.root.join(path);
        let raw = fs::read(&file).map_err(|error| Error::io("read", &file, error))?;
        decompress(raw).map_err(|error| Error::io("decompress", &file, error))
    }
}

/// The content of a module's file, whichever of the kernel's compressions it has.
fn decompress(raw: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let read = if raw.starts_with(b"\x28\xb5\x2f\xfd") {
        zstd::Decoder::new(raw.as_slice())?
            .take(MAX_MODULE)
            .read_to_end(&mut out)
    } else if raw.starts_with(b"\xfd7zXZ\0") {
        lzma_rust2::XzReader::new(raw.as_slice(), true)
            .take(MAX_MODULE)
            .read_to_end(&mut out)
    } else if raw.starts_with(b"\x1f\x8b") {
        flate2::read::MultiGzDecoder::new(raw.as_slice())
            .take(MAX_MODULE)
            .read_to_end(&mut out)
    } else {
        return Ok(raw);
    };
    read?;
    Ok(out)
}

/// What a module's own `.modinfo` says it needs: `depends`, and `softdep`'s `pre:` list is left out
/// because nothing fails without it.
fn declared_needs(module: &[u8], path: &Path) -> Result<Vec<String>> {
    let section = Elf::parse(module)
        .and_then(|elf| elf.section(b".modinfo"))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("{} is not a kernel module", path.display()),
            )
        })?;
    Ok(elf::modinfo(section, "depends")
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect())
}

/// `modules.dep`: `path: path path …` lines; the needs are in the reverse of their loading order.
fn parse_modules_dep(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, Vec<String>>) {
    let mut paths = BTreeMap::new();
    let mut needs = BTreeMap::new();
    for line in text.lines() {
        let Some((path, rest)) = line.split_once(':') else {
            continue;
        };
        let name = name_of(path);
        paths.insert(name.clone(), path.trim().to_owned());
        needs.insert(name, rest.split_whitespace().rev().map(name_of).collect());
    }
    (paths, needs)
}

fn walk(
    root: &Path,
    below: &str,
    paths: &mut BTreeMap<String, String>,
    depth: usize,
) -> Result<()> {
    let folder = root.join(below);
    if depth > 16 {
        return Ok(());
    }
    let list = fs::read_dir(&folder).map_err(|error| Error::io("list", &folder, error))?;
    for entry in list {
        let entry = entry.map_err(|error| Error::io("list", &folder, error))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let path = format!("{below}/{name}");
        let kind = entry
            .file_type()
            .map_err(|error| Error::io("list", &folder, error))?;
        if kind.is_dir() {
            walk(root, &path, paths, depth + 1)?;
        } else if name
            .split_once(".ko")
            .is_some_and(|(_, end)| matches!(end, "" | ".xz" | ".zst" | ".gz"))
        {
            paths.insert(name_of(&name), path);
        }
    }
    Ok(())
}

/// A module's name from its path: no folder, no `.ko…`, underscores.
fn name_of(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    canonical(file.split(".ko").next().unwrap_or_default())
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::elf::tests::fake_module;

    fn order(wanted: &[&str], dep: &str, builtin: &[&str]) -> Result<Vec<String>> {
        let (paths, needs) = parse_modules_dep(dep);
        let builtin = builtin.iter().map(|name| (*name).to_owned()).collect();
        let modules = load_order(wanted, wanted, &builtin, |name| {
            Ok(paths.get(name).map(|path| Module {
                name: name.into(),
                path: path.clone(),
                needs: needs[name].clone(),
            }))
        })?;
        Ok(modules.into_iter().map(|module| module.name).collect())
    }

    #[test]
    fn each_comes_after_what_it_needs_and_once() {
        let dep = "k/virtio_scsi.ko.xz: k/scsi_mod.ko.xz k/virtio.ko.xz\n\
                   k/sd_mod.ko: k/t10-pi.ko k/scsi_mod.ko.xz\nk/t10-pi.ko:\n\
                   k/virtio.ko.xz:\nk/scsi_mod.ko.xz: k/scsi_common.ko.zst\nk/scsi_common.ko.zst:\n";
        assert_eq!(
            order(&["virtio-scsi", "sd_mod"], dep, &[]).unwrap(),
            [
                "virtio",
                "scsi_common",
                "scsi_mod",
                "virtio_scsi",
                "t10_pi",
                "sd_mod"
            ]
        );
        assert_eq!(
            order(&["sd_mod"], dep, &["scsi_mod", "t10_pi"]).unwrap(),
            ["sd_mod"]
        );
    }

    #[test]
    fn a_required_module_that_is_nowhere_is_named() {
        let error = order(&["overlay"], "", &[]).unwrap_err();
        assert!(error.to_string().contains("overlay"));
        let error = order(&["a"], "k/a.ko: k/gone.ko\n", &[]).unwrap_err();
        assert!(error.to_string().contains("gone, which a needs"), "{error}");
        assert!(order(&["overlay"], "", &["overlay"]).unwrap().is_empty());
    }

    #[test]
    fn a_cycle_ends() {
        let dep = "k/a.ko: k/b.ko\nk/b.ko: k/a.ko\n";
        assert_eq!(order(&["a"], dep, &[]).unwrap(), ["b", "a"]);
    }

    #[test]
    fn without_modules_dep_the_modules_themselves_tell() {
        let folder = tempfile::tempdir().unwrap();
        let sub = folder.path().join("kernel/drivers");
        fs::create_dir_all(&sub).unwrap();
        fs::write(
            folder.path().join("modules.builtin"),
            "kernel/fs/ext4/ext4.ko\n",
        )
        .unwrap();
        fs::write(sub.join("sd_mod.ko"), fake_module(b"depends=scsi-mod\0")).unwrap();
        let packed = zstd::encode_all(&fake_module(b"depends=\0")[..], 1).unwrap();
        fs::write(sub.join("scsi-mod.ko.zst"), packed).unwrap();
        let modules = ModuleFolder::open(folder.path()).unwrap();
        let order = modules.load_order(&["ext4", "sd_mod"], &["ext4"]).unwrap();
        let paths: Vec<_> = order.iter().map(|module| module.path.as_str()).collect();
        assert_eq!(
            paths,
            ["kernel/drivers/scsi-mod.ko.zst", "kernel/drivers/sd_mod.ko"]
        );
        assert!(modules.read(paths[0]).unwrap().starts_with(b"\x7fELF"));
    }

    #[test]
    fn a_file_that_is_no_module_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("kernel")).unwrap();
        fs::write(folder.path().join("kernel/sd_mod.ko"), "nonsense").unwrap();
        let modules = ModuleFolder::open(folder.path()).unwrap();
        let error = modules.load_order(&["sd_mod"], &[]).unwrap_err();
        assert!(error.to_string().contains("sd_mod.ko"), "{error}");
    }
}
