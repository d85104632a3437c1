//! Where variables of the environment come from, so that nothing else asks the process itself.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};

/// A source of environment variables: the process's own, or a fixed set.
///
/// Everything in this crate that depends on a variable takes it from here; a test or an embedding
/// program can give its own without touching the process.
#[derive(Clone)]
pub struct Environment {
    source: Source,
}

#[derive(Clone)]
enum Source {
    Process,
    Fixed(Arc<HashMap<String, OsString>>),
}

impl Environment {
    /// The variables of this process, read when they are needed.
    #[must_use]
    pub fn process() -> Self {
        Self {
            source: Source::Process,
        }
    }

    /// A fixed set of variables and nothing else.
    #[must_use]
    pub fn fixed<K, V>(variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Into<OsString>,
    {
        Self {
            source: Source::Fixed(Arc::new(
                variables
                    .into_iter()
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect(),
            )),
        }
    }

    /// The value of `name`, unless it is unset or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<OsString> {
        match &self.source {
            Source::Process => std::env::var_os(name),
            Source::Fixed(variables) => variables.get(name).cloned(),
        }
        .filter(|value| !value.is_empty())
    }

    /// The value of `name` as a number ≥ 0; unset counts as `None`.
    ///
    /// # Errors
    /// The value is not such a number; the error names the variable.
    pub fn number(&self, name: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.to_str().and_then(|text| text.parse().ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(Error::invalid(format!(
                "the environment variable {name} is {value:?}, which is not a whole number from 0 to {}",
                u32::MAX
            ))
            .hint(format!("unset {name} or give it a number"))),
        }
    }

    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.get(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    }

    /// Where the kernel, the initrd, modules and caches are kept by default.
    ///
    /// `$OPENGCS_DATA_DIR` when set. Else on Windows `%ProgramFiles%\Linux Containers`, and where that
    /// variable is unset, `Program Files\Linux Containers` on the drive of the system; elsewhere
    /// `$XDG_DATA_HOME/opengcs`, or `~/.local/share/opengcs`.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        if let Some(path) = self.get("OPENGCS_DATA_DIR") {
            return PathBuf::from(path);
        }
        if cfg!(windows) {
            return self.program_files().join("Linux Containers");
        }
        // A relative XDG_DATA_HOME is to be ignored, says the XDG base directory specification.
        if let Some(path) = self.absolute("XDG_DATA_HOME") {
            return path.join("opengcs");
        }
        match self.get("HOME") {
            Some(home) => PathBuf::from(home).join(".local/share/opengcs"),
            None => PathBuf::from("/var/lib/opengcs"),
        }
    }

    /// A relative folder would be one thing here and another there, so that none is taken.
    fn program_files(&self) -> PathBuf {
        self.absolute("ProgramFiles").unwrap_or_else(|| {
            let mut folder = self.get("SystemDrive").unwrap_or_else(|| "C:".into());
            folder.push(r"\Program Files");
            folder.into()
        })
    }

    /// Where records of failed VMs are kept by default: `$XDG_STATE_HOME/opengcs`, or
    /// `~/.local/state/opengcs`, or on Windows `%LOCALAPPDATA%\opengcs`; the data folder where there
    /// is none of them.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        if let Some(path) = self.absolute("XDG_STATE_HOME") {
            return path.join("opengcs");
        }
        if cfg!(windows) {
            // The data folder is one that administrators alone may write to.
            return match self.absolute("LOCALAPPDATA") {
                Some(path) => path.join("opengcs"),
                None => self.data_dir(),
            };
        }
        match self.get("HOME") {
            Some(home) => PathBuf::from(home).join(".local/state/opengcs"),
            None => self.data_dir(),
        }
    }

    /// The folder under which a VM's private runtime folder is made.
    pub(crate) fn runtime_parent(&self) -> PathBuf {
        self.absolute("XDG_RUNTIME_DIR")
            .filter(|path| path.is_dir())
            .unwrap_or_else(std::env::temp_dir)
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::process()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Process => f.write_str("Environment::process()"),
            Source::Fixed(variables) => f.debug_tuple("Environment").field(variables).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_dir_follows_its_order() {
        let all = Environment::fixed([
            ("OPENGCS_DATA_DIR", "/a"),
            ("XDG_DATA_HOME", "/b"),
            ("HOME", "/c"),
        ]);
        assert_eq!(all.data_dir(), PathBuf::from("/a"));
        if cfg!(unix) {
            let xdg = Environment::fixed([("XDG_DATA_HOME", "/b"), ("HOME", "/c")]);
            assert_eq!(xdg.data_dir(), PathBuf::from("/b/opengcs"));
            let relative = Environment::fixed([("XDG_DATA_HOME", "b"), ("HOME", "/c")]);
            assert_eq!(
                relative.data_dir(),
                PathBuf::from("/c/.local/share/opengcs")
            );
        }
    }

    #[cfg(windows)]
    #[test]
    fn windows_has_its_folders_also_without_its_variables() {
        for (variables, data) in [
            (
                &[("ProgramFiles", r"D:\Programs")][..],
                r"D:\Programs\Linux Containers",
            ),
            (&[], r"C:\Program Files\Linux Containers"),
            (
                &[("ProgramFiles", ""), ("SystemDrive", "E:")],
                r"E:\Program Files\Linux Containers",
            ),
            (
                &[("ProgramFiles", "relative")],
                r"C:\Program Files\Linux Containers",
            ),
        ] {
            let environment = Environment::fixed(variables.iter().copied());
            assert_eq!(environment.data_dir(), PathBuf::from(data), "{variables:?}");
            let options = crate::Options::parse_with([] as [&str; 0], &environment).unwrap();
            assert_eq!(
                options.kernel_path(),
                PathBuf::from(data).join("bootx64.efi")
            );
            assert_eq!(
                options.initrd_path(),
                PathBuf::from(data).join("initrd.img")
            );
            assert_eq!(options.vhdx, PathBuf::from(data).join("uvm.vhdx"));
            assert_eq!(environment.state_dir(), PathBuf::from(data));
        }
        let local = Environment::fixed([("LOCALAPPDATA", r"C:\Users\u\AppData\Local")]);
        assert_eq!(
            local.state_dir(),
            PathBuf::from(r"C:\Users\u\AppData\Local\opengcs")
        );
    }

    #[test]
    fn a_number_that_is_none_names_its_variable() {
        let environment = Environment::fixed([("N", "ten"), ("M", "10"), ("E", "")]);
        assert!(
            environment
                .number("N")
                .unwrap_err()
                .to_string()
                .contains('N')
        );
        assert_eq!(environment.number("M").unwrap(), Some(10));
        assert_eq!(environment.number("E").unwrap(), None);
    }
}
