//! What lies under a prefix (`/usr`, or the folder of the tarball), with fixed modes and times.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::{Programs, tool, write};
use crate::run;

/// A folder that becomes part of a package.
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The programs, the manual's pages and what shells complete.
    ///
    /// `opengcs` finds the agent at `../lib/opengcs/gcs` from its own folder, so the tree may lie
    /// anywhere.
    pub(super) fn programs_and_manuals(&self, programs: &Programs) -> Result<()> {
        self.copy(&programs.opengcs, "bin/opengcs")?;
        self.copy(&programs.agent, "lib/opengcs/gcs")?;
        for program in ["bin/opengcs", "lib/opengcs/gcs"] {
            let program = self.root.join(program);
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
            // The optimised ones have no symbols already.
            run::output(tool("strip").arg(&program))?;
        }
        let manuals = self.root.join("share/man/man1");
        fs::create_dir_all(&manuals).with_context(|| format!("cannot make {manuals:?}"))?;
        let opengcs = self.root.join("bin/opengcs");
        run::output(
            std::process::Command::new(&opengcs)
                .args(["man", "--folder"])
                .arg(&manuals),
        )?;
        for page in fs::read_dir(&manuals)? {
            gzip(&page?.path())?;
        }
        for (shell, place) in [
            ("bash", "share/bash-completion/completions/opengcs"),
            ("zsh", "share/zsh/site-functions/_opengcs"),
            ("fish", "share/fish/vendor_completions.d/opengcs.fish"),
        ] {
            let mut completions = std::process::Command::new(&opengcs);
            let text = run::output(completions.args(["completions", shell]))?;
            write(&self.root.join(place), text)?;
        }
        Ok(())
    }

    /// The licences, ours and those of what is linked in, and what to read first.
    pub(super) fn notices(&self, folder: &str, third_parties: &str) -> Result<()> {
        for name in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
            self.copy(&run::root().join(name), &format!("{folder}/{name}"))?;
        }
        write(
            &self.root.join(folder).join("THIRD-PARTY.txt"),
            third_parties,
        )
    }

    /// The book and what else the README names, where its links lead to.
    pub(super) fn documents(&self, folder: &str) -> Result<()> {
        let root = run::root();
        for name in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
            self.copy(&root.join(name), &format!("{folder}/{name}"))?;
        }
        for page in walk(&root.join("docs"))? {
            let ending = page.extension().unwrap_or_default();
            if ending == "md" || ending == "svg" {
                let name = page.strip_prefix(&root)?.display();
                self.copy(&page, &format!("{folder}/{name}"))?;
            }
        }
        Ok(())
    }

    /// Moves a folder within the tree.
    pub(super) fn move_to(&self, from: &str, to: &str) -> Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
            .with_context(|| format!("cannot move {from} to {to}"))
    }

    fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        write(&self.root.join(to), content)
    }

    /// Gives everything its mode and its time; what is changed afterwards has others.
    pub(super) fn seal(&self, time: u64) -> Result<()> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time);
        for path in walk(&self.root)? {
            let program = path.is_dir() || path.ends_with("bin/opengcs") || path.ends_with("gcs");
            let mode = if program { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            fs::File::open(&path)?.set_modified(time)?;
        }
        Ok(())
    }
}

/// The folder, and all below it, folders before what they hold, sorted.
pub(super) fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![folder.to_owned()];
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(walk(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// Packs a file without its name and time, and removes the plain one.
pub(super) fn gzip(path: &Path) -> Result<()> {
    run::output(tool("gzip").arg("-9n").arg(path)).map(drop)
}

/// Packs the folder `name` in `parent`.
pub(super) fn tar(parent: &Path, name: &str, time: u64, to: &Path) -> Result<()> {
    run::output(
        tool("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .arg(format!("--mtime=@{time}"))
            .args(["--format=gnu", "--use-compress-program=gzip -9n"])
            .arg("--directory")
            .arg(parent)
            .arg("--create")
            .arg("--file")
            .arg(to)
            .arg(name),
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_the_readme_lead_somewhere() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("xtask-documents-{}", std::process::id()));
        Tree::new(&folder).documents("doc")?;
        let readme = fs::read_to_string(run::root().join("README.md"))?;
        let links = readme
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next());
        let mut count = 0;
        for link in links.filter(|link| !link.contains(':') && !link.starts_with("crates/")) {
            assert!(folder.join("doc").join(link).exists(), "{link}");
            count += 1;
        }
        assert!(count > 10);
        fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
