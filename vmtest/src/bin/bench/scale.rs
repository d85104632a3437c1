//! What the command line asks for: which rows, of what size, how often.

use anyhow::{Context as _, Result, bail, ensure};

const USAGE: &str = "usage: cargo xtask bench [disk|vm] [--files N] [--mib N] [--small N] \
                     [--sparse-gib N] [--pairs N] [--disks N] [--only NAME[,NAME…]]";

/// The names that `--only` takes, in the order in which they are measured.
pub(crate) const NAMES: [&str; 12] = [
    "cp", "mkfs", "arcbox", "gzip", "zstd", "export", "mount", "rdump", "scratch", "million",
    "sparse", "boot",
];

/// How much is measured.
pub(crate) struct Scale {
    /// Files in the synthetic layer.
    pub(crate) files: u32,
    /// MiB of their contents.
    pub(crate) mib: u32,
    /// Files in the tar of very many.
    pub(crate) small: u32,
    /// GiB of the sparse file.
    pub(crate) sparse_gib: u32,
    /// Alternating pairs; the median of each side counts.
    pub(crate) pairs: u32,
    /// How often a disk is added to a VM and removed.
    pub(crate) disks: u32,
    /// Whether rows without a VM are measured.
    pub(crate) disk: bool,
    /// Whether rows with a VM are.
    pub(crate) vm: bool,
    /// The only rows; empty for all.
    only: Vec<String>,
}

impl Scale {
    /// Reads the command line.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut scale = Self {
            files: 60_000,
            mib: 2048,
            small: 1_000_000,
            sparse_gib: 200,
            pairs: 5,
            disks: 1000,
            disk: true,
            vm: true,
            only: Vec::new(),
        };
        while let Some(word) = words.next() {
            let number = match word.as_str() {
                "disk" => {
                    scale.vm = false;
                    continue;
                }
                "vm" => {
                    scale.disk = false;
                    continue;
                }
                "--only" => {
                    let names = words.next().context(USAGE)?;
                    for name in names.split(',') {
                        ensure!(
                            NAMES.contains(&name),
                            "there is no row {name:?}; there are {}",
                            NAMES.join(", ")
                        );
                        scale.only.push(name.to_owned());
                    }
                    continue;
                }
                "--files" => &mut scale.files,
                "--mib" => &mut scale.mib,
                "--small" => &mut scale.small,
                "--sparse-gib" => &mut scale.sparse_gib,
                "--pairs" => &mut scale.pairs,
                "--disks" => &mut scale.disks,
                _ => bail!("{word:?}: {USAGE}"),
            };
            let given = words.next().and_then(|word| word.parse().ok());
            *number = given.filter(|number| *number > 0).context(USAGE)?;
        }
        Ok(scale)
    }

    /// Whether the row `name` is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        debug_assert!(NAMES.contains(&name));
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// Whether no row is chosen.
    pub(crate) fn wants_all(&self) -> bool {
        self.only.is_empty()
    }

    /// Whether one of the rows is.
    pub(crate) fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }
}
