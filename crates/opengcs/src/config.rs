//! What a utility VM is started from, and which of the two ways of booting it takes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::environment::Environment;
use crate::error::Result;
use crate::options::Options;

mod validate;

pub(crate) use validate::{check_guest_path, where_from};

pub use opengcs_machine::{Acceleration, Chipset};

/// Size in GB (2³⁰ bytes) of a sandbox or scratch disk when nothing else is asked for, and the
/// least that [`create_ext4_vhdx`](crate::create_ext4_vhdx) makes.
#[doc(alias = "DefaultVhdxSizeGB")]
pub const DEFAULT_VHDX_SIZE_GB: u32 = 20;

/// How long a VM may make no progress when neither an option nor the environment says otherwise.
pub const DEFAULT_UVM_TIMEOUT: Duration = Duration::from_secs(300);

/// Variable of the environment with the timeout in seconds, when no option gives it.
pub const TIMEOUT_VARIABLE: &str = "OPENGCS_UVM_TIMEOUT_SECONDS";

/// Which way of booting is asked for.
#[doc(alias = "ModeRequestAuto")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RequestedMode {
    /// The VHDX when it exists, else kernel and initrd.
    #[default]
    #[doc(alias = "ModeRequestAuto")]
    Auto,
    /// The VHDX, or an error.
    #[doc(alias = "ModeRequestVhdx")]
    Vhdx,
    /// Kernel and initrd, or an error.
    #[doc(alias = "ModeRequestKernelInitrd")]
    KernelInitrd,
}

/// Which way of booting is taken, found by [`Config::validate`].
#[doc(alias = "Mode")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BootMode {
    /// From a bootable disk.
    #[doc(alias = "ModeActualVhdx")]
    Vhdx,
    /// From a kernel and an initrd.
    #[doc(alias = "ModeActualKernelInitrd")]
    KernelInitrd,
}

/// A disk file and its place in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedVirtualDisk {
    /// The disk file: VHD, VHDX or raw, recognised by its content.
    pub host_path: PathBuf,
    /// Where its file system is mounted, or where a link to the device is put when `attach_only`.
    pub container_path: String,
    /// Neither the guest's mount nor the machine lets anybody write.
    pub read_only: bool,
    /// The device is there, and nothing is mounted.
    pub attach_only: bool,
}

impl MappedVirtualDisk {
    /// A disk that is mounted and can be written.
    pub fn new(host_path: impl Into<PathBuf>, container_path: impl Into<String>) -> Self {
        Self {
            host_path: host_path.into(),
            container_path: container_path.into(),
            read_only: false,
            attach_only: false,
        }
    }

    /// Lets nobody write to it.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Leaves it unmounted.
    #[must_use]
    pub fn attach_only(mut self, attach_only: bool) -> Self {
        self.attach_only = attach_only;
        self
    }
}

/// Everything a utility VM is started from.
///
/// There are two ways to boot: a VHDX, or a kernel and an initrd in one folder. With
/// [`RequestedMode::Auto`] the VHDX has priority.
///
/// ```
/// use opengcs::{Config, Environment, RequestedMode};
///
/// let environment = Environment::fixed([("OPENGCS_DATA_DIR", "/srv/opengcs")]);
/// let mut config = Config::generate_default_with(["lcow.timeout=60"], &environment)?;
/// config.requested_mode = RequestedMode::KernelInitrd;
/// let error = config.validate().unwrap_err();
/// assert!(error.to_string().contains("/srv/opengcs/bootx64.efi"));
/// # Ok::<(), opengcs::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    /// The client's options.
    #[doc(alias = "Options")]
    pub options: Options,
    /// Name of the VM, for people.
    pub name: String,
    /// The boot mode asked for.
    #[doc(alias = "RequestedMode")]
    pub requested_mode: RequestedMode,
    /// The boot mode that [`validate`](Self::validate) found; `None` before, or when it failed.
    #[doc(alias = "ActualMode")]
    #[doc(alias = "ModeActualError")]
    pub boot_mode: Option<BootMode>,
    /// How long the VM may make no progress before an operation is given up.
    #[doc(alias = "UvmTimeoutSeconds")]
    pub uvm_timeout: Duration,
    /// Disks that are attached when the VM starts.
    #[doc(alias = "MappedVirtualDisks")]
    pub mapped_virtual_disks: Vec<MappedVirtualDisk>,
    /// Memory in MiB, 64–1,048,576.
    pub memory_mib: u32,
    /// Virtual processors, 1–255.
    pub processors: u32,
    /// SCSI controllers, 1–4, of 64 disks each.
    pub scsi_controllers: u8,
    /// How the processors are run.
    pub acceleration: Acceleration,
    /// Which kind of machine; the default lets the backend choose.
    pub chipset: Chipset,
    /// The hypervisor's program; the default looks for it.
    pub hypervisor: Option<PathBuf>,
    /// Where the console is recorded so that it outlives the VM; by default it does not.
    pub console_path: Option<PathBuf>,
    /// Where the agent's log is recorded so that it outlives the VM, at most 1 MiB in two files.
    pub agent_log_path: Option<PathBuf>,
    /// Folder for the record of a VM that does not come up: one file each, the ten newest are kept.
    /// `None`: it is only the error's [`detail`](crate::Error::detail).
    pub bundle_dir: Option<PathBuf>,
    /// Where variables of the environment come from.
    pub environment: Environment,
}

impl Config {
    /// The defaults for a set of `lcow.key=value` words.
    ///
    /// # Errors
    /// A word's value, or `OPENGCS_UVM_TIMEOUT_SECONDS`, cannot be used; the error names it.
    #[doc(alias = "GenerateDefault")]
    pub fn generate_default<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::generate_default_with(words, &Environment::process())
    }

    /// [`generate_default`](Self::generate_default) with a given environment.
    ///
    /// # Errors
    /// As there.
    pub fn generate_default_with<S: AsRef<str>>(
        words: impl IntoIterator<Item = S>,
        environment: &Environment,
    ) -> Result<Self> {
        Self::from_options(Options::parse_with(words, environment)?, environment)
    }

    /// The defaults for options that are parsed already.
    ///
    /// # Errors
    /// `OPENGCS_UVM_TIMEOUT_SECONDS` cannot be used.
    pub fn from_options(options: Options, environment: &Environment) -> Result<Self> {
        let from_environment = environment
            .number(TIMEOUT_VARIABLE)?
            .filter(|seconds| *seconds != 0)
            .map(|seconds| Duration::from_secs(seconds.into()));
        Ok(Self {
            uvm_timeout: options
                .timeout
                .or(from_environment)
                .unwrap_or(DEFAULT_UVM_TIMEOUT),
            options,
            name: "opengcs".into(),
            requested_mode: RequestedMode::Auto,
            boot_mode: None,
            mapped_virtual_disks: Vec::new(),
            memory_mib: 512,
            processors: 1,
            scsi_controllers: 1,
            acceleration: Acceleration::Auto,
            chipset: Chipset::Auto,
            hypervisor: None,
            console_path: None,
            agent_log_path: None,
            bundle_dir: None,
            environment: environment.clone(),
        })
    }

    /// Checks that a VM can be started from this, and finds the boot mode. Nothing is changed but
    /// [`boot_mode`](Self::boot_mode), which is `None` after a failure.
    ///
    /// # Errors
    /// What is missing or does not fit, by its path or option, and what to do.
    #[doc(alias = "Validate")]
    pub fn validate(&mut self) -> Result<BootMode> {
        self.boot_mode = None;
        let mode = validate::validate(self)?;
        self.boot_mode = Some(mode);
        Ok(mode)
    }

    /// The folder of kernel and initrd.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.options.kird_path
    }
}
