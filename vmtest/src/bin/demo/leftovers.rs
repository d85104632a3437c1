//! Whether the machine is after the demonstration as it was before.

use std::path::Path;

use anyhow::{Result, ensure};

/// What was there at the start.
pub(crate) struct Before {
    mounts: String,
}

impl Before {
    /// Takes note.
    pub(crate) fn look() -> Result<Self> {
        Ok(Self {
            mounts: std::fs::read_to_string("/proc/mounts")?,
        })
    }

    /// Fails when something is there now that was not, or when a child process still runs.
    pub(crate) fn compare(&self) -> Result<()> {
        let now = Self::look()?;
        ensure!(now.mounts == self.mounts, "mounts changed:\n{}", now.mounts);
        let children = children()?;
        ensure!(children.is_empty(), "processes are left: {children:?}");
        Ok(())
    }
}

/// Processes whose parent we are, by their names.
fn children() -> Result<Vec<String>> {
    let ours = format!("PPid:\t{}", std::process::id());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let status = Path::new(&entry?.path()).join("status");
        // Most entries are no process, and a process may end while we look.
        let Ok(text) = std::fs::read_to_string(status) else {
            continue;
        };
        if text.lines().any(|line| line == ours) {
            found.push(text.lines().next().unwrap_or_default().to_owned());
        }
    }
    Ok(found)
}
