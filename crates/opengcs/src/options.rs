//! Which `lcow.key=value` words are known, and what they mean.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::environment::Environment;
use crate::error::{Error, Result};

/// File name of the kernel in the data folder.
pub const DEFAULT_KERNEL_FILE: &str = "bootx64.efi";
/// File name of the initrd in the data folder.
pub const DEFAULT_INITRD_FILE: &str = "initrd.img";
/// File name of the bootable disk in the data folder.
pub const DEFAULT_VHDX_FILE: &str = "uvm.vhdx";

/// What a client may choose about a utility VM, as `lcow.key=value` words.
///
/// | word | means | default |
/// |---|---|---|
/// | `lcow.kirdpath` | folder of kernel and initrd | the data folder, see [`Environment::data_dir`] |
/// | `lcow.kernel` | kernel's file name in it | `bootx64.efi` |
/// | `lcow.initrd` | initrd's file name in it | `initrd.img` |
/// | `lcow.vhdx` | path of a bootable disk | `<kirdpath>/uvm.vhdx` |
/// | `lcow.timeout` | seconds without progress before giving up; 0 = not chosen | none |
/// | `lcow.bootparameters` | more words for the kernel (not with a VHDX) | none |
#[doc(alias = "ParseOptions")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Folder where kernel and initrd are.
    #[doc(alias = "KirdPath")]
    pub kird_path: PathBuf,
    /// The kernel's file name in `kird_path`.
    #[doc(alias = "KernelFile")]
    pub kernel_file: String,
    /// The initrd's file name in `kird_path`.
    #[doc(alias = "InitrdFile")]
    pub initrd_file: String,
    /// Full path of a disk file to boot from.
    #[doc(alias = "Vhdx")]
    pub vhdx: PathBuf,
    /// How long the VM may make no progress, when chosen.
    #[doc(alias = "TimeoutSeconds")]
    pub timeout: Option<Duration>,
    /// More words for the kernel's command line; kernel + initrd only.
    #[doc(alias = "BootParameters")]
    pub boot_parameters: String,
    /// Words that were given and not understood.
    pub warnings: Vec<OptionWarning>,
}

/// A word that [`Options::parse`] passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionWarning {
    /// The word has no `=`.
    NoValue(String),
    /// The word's key is none of ours; the key as it was given.
    UnknownKey(String),
    /// The key came again; the last one counts.
    Repeated(String),
}

impl fmt::Display for OptionWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue(word) => write!(f, "option {word:?} is ignored: it is not key=value"),
            Self::UnknownKey(key) => write!(
                f,
                "option {key:?} is ignored: the known ones are lcow.kirdpath, lcow.kernel, \
                 lcow.initrd, lcow.vhdx, lcow.bootparameters and lcow.timeout"
            ),
            Self::Repeated(key) => write!(f, "option {key:?} is given again: the last one counts"),
        }
    }
}

impl Options {
    /// The defaults: what parsing no words gives.
    #[must_use]
    pub fn defaults(environment: &Environment) -> Self {
        let kird_path = environment.data_dir();
        Self {
            vhdx: kird_path.join(DEFAULT_VHDX_FILE),
            kird_path,
            kernel_file: DEFAULT_KERNEL_FILE.into(),
            initrd_file: DEFAULT_INITRD_FILE.into(),
            timeout: None,
            boot_parameters: String::new(),
            warnings: Vec::new(),
        }
    }

    /// Reads `key=value` words with this process's environment for the defaults.
    ///
    /// Keys are compared without case and split from their value at the first `=`. Words that are
    /// not understood are passed over, for callers that hand several programs' options to each,
    /// and listed in [`warnings`](Self::warnings).
    ///
    /// # Errors
    /// A value that cannot be used; the error names the option.
    #[doc(alias = "ParseOptions")]
    pub fn parse<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::parse_with(words, &Environment::process())
    }

    /// [`parse`](Self::parse) with a given environment.
    ///
    /// # Errors
    /// As for `parse`.
    pub fn parse_with<S: AsRef<str>>(
        words: impl IntoIterator<Item = S>,
        environment: &Environment,
    ) -> Result<Self> {
        let mut options = Self::defaults(environment);
        let mut kird_path = None;
        let mut vhdx = None;
        let mut seen = Vec::new();
        for word in words {
            let word = word.as_ref();
            let Some((key, value)) = word.split_once('=') else {
                options.warnings.push(OptionWarning::NoValue(word.into()));
                continue;
            };
            let known = key.to_lowercase();
            match known.as_str() {
                "lcow.kirdpath" => kird_path = filled(value).map(PathBuf::from),
                "lcow.kernel" => {
                    options.kernel_file = filled(value).unwrap_or(DEFAULT_KERNEL_FILE).into();
                }
                "lcow.initrd" => {
                    options.initrd_file = filled(value).unwrap_or(DEFAULT_INITRD_FILE).into();
                }
                "lcow.vhdx" => vhdx = filled(value).map(PathBuf::from),
                "lcow.bootparameters" => options.boot_parameters = value.into(),
                "lcow.timeout" => options.timeout = seconds(key, value)?,
                _ => {
                    options.warnings.push(OptionWarning::UnknownKey(key.into()));
                    continue;
                }
            }
            if seen.contains(&known) {
                options.warnings.push(OptionWarning::Repeated(key.into()));
            } else {
                seen.push(known);
            }
        }
        if let Some(folder) = kird_path {
            options.vhdx = folder.join(DEFAULT_VHDX_FILE);
            options.kird_path = folder;
        }
        if let Some(path) = vhdx {
            options.vhdx = path;
        }
        Ok(options)
    }

    /// The kernel's whole path.
    #[must_use]
    pub fn kernel_path(&self) -> PathBuf {
        self.kird_path.join(&self.kernel_file)
    }

    /// The initrd's whole path.
    #[must_use]
    pub fn initrd_path(&self) -> PathBuf {
        self.kird_path.join(&self.initrd_file)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::defaults(&Environment::process())
    }
}

fn filled(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}

fn seconds(key: &str, value: &str) -> Result<Option<Duration>> {
    match value.parse::<u32>() {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds.into()))),
        Err(_) => Err(Error::invalid(format!(
            "option {key} is {value:?}, which is not a whole number of seconds from 0 to {}",
            u32::MAX
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment::fixed([("OPENGCS_DATA_DIR", "/data")])
    }

    fn parse(words: &[&str]) -> Result<Options> {
        Options::parse_with(words, &environment())
    }

    #[test]
    fn no_words_give_the_defaults() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.kernel_path(), PathBuf::from("/data/bootx64.efi"));
        assert_eq!(options.initrd_path(), PathBuf::from("/data/initrd.img"));
        assert_eq!(options.vhdx, PathBuf::from("/data/uvm.vhdx"));
        assert_eq!(options.timeout, None);
        assert!(options.warnings.is_empty());
    }

    #[test]
    fn keys_have_no_case_and_values_keep_theirs_and_their_equal_signs() {
        let options = parse(&[
            "LCOW.KirdPath=/K=1",
            "lcow.BOOTparameters=a=b  c=D",
            "Lcow.Timeout=+07",
        ])
        .unwrap();
        assert_eq!(options.kird_path, PathBuf::from("/K=1"));
        assert_eq!(options.vhdx, PathBuf::from("/K=1/uvm.vhdx"));
        assert_eq!(options.boot_parameters, "a=b  c=D");
        assert_eq!(options.timeout, Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_given_vhdx_stands_whatever_the_order() {
        let options = parse(&["lcow.vhdx=/v.vhdx", "lcow.kirdpath=/k"]).unwrap();
        assert_eq!(options.vhdx, PathBuf::from("/v.vhdx"));
    }

    #[test]
    fn empty_values_mean_the_default() {
        let options = parse(&["lcow.kirdpath=", "lcow.kernel=", "lcow.vhdx="]).unwrap();
        assert_eq!(options, parse(&[]).unwrap());
    }

    #[test]
    fn a_bad_timeout_is_an_error_that_names_the_option() {
        for value in ["-1", "ten", "", "1.5", "99999999999999999999", " 5"] {
            let error = parse(&[&format!("lcow.timeout={value}")]).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("lcow.timeout"), "{error}");
        }
        assert_eq!(parse(&["lcow.timeout=0"]).unwrap().timeout, None);
    }

    #[test]
    fn what_is_not_understood_is_a_warning() {
        let options = parse(&[
            "word",
            "lcow.nonsense=1",
            "=",
            "lcow.kernel=a",
            "LCOW.kernel=b",
        ])
        .unwrap();
        assert_eq!(options.kernel_file, "b");
        assert_eq!(
            options.warnings,
            [
                OptionWarning::NoValue("word".into()),
                OptionWarning::UnknownKey("lcow.nonsense".into()),
                OptionWarning::UnknownKey(String::new()),
                OptionWarning::Repeated("LCOW.kernel".into()),
            ]
        );
    }
}
