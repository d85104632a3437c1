//! What the command line as a whole looks like, and what every command understands.

use clap::{Args, Parser};

use crate::command::Command;
use crate::logging::LogFormat;

/// What `opengcs` is told.
#[derive(Debug, Parser)]
#[command(
    name = "opengcs",
    // Not the file's name, which may end with `.exe`.
    bin_name = "opengcs",
    version,
    about = "Container layers as ext4 disk files, and small Linux VMs that use them",
    long_about = "Container layers as ext4 disk files, and small Linux VMs that use them.\n\n\
        A layer is a tar stream. opengcs turns it into a disk file with an ext4 file system that \
        a VM can mount (tar2vhd), and a disk file back into a tar (vhd2tar), without root and \
        without a VM. It makes empty disks to write to (scratch), says what a disk file is \
        (inspect), and runs a program in a small Linux VM that has such disks (run).",
    after_help = "\
Examples:
  opengcs doctor                                     what works on this host, what is missing
  opengcs tar2vhd -i layer.tar.gz -o layer.vhd       a layer becomes a disk file
  opengcs vhd2tar layer.vhd -o layer.tar             and a tar again
  opengcs kernel install && opengcs initrd build     get ready for VMs
  opengcs run --disk layer.vhd:/mnt:ro -- ls /mnt    a program in a VM

Sizes are bytes, or a number with K, M, G or T in binary units: 20G is 20 × 1024³ bytes.

Exit codes:
  0              done
  1              failed; doctor: no VM can be started; verify: it is not as the receipt says;
                 tar2vhd --plan: the tar would be refused
  2              the command line makes no sense
  125            run, exec: opengcs itself failed
  126, 127       run, exec: the program cannot be run, or is not in the VM
  129, 130, 143  hung up, interrupted (Ctrl-C), terminated
  141            whoever read the output has gone
  else           run, exec: the program's own; 128+n when signal n ended it

Environment:
  OPENGCS_DATA_DIR  kernel, initrd, caches; else opengcs in XDG_DATA_HOME or ~/.local/share
  OPENGCS_LOG       what is logged, before -v: debug, or opengcs_machine=trace
  OPENGCS_UVM_TIMEOUT_SECONDS
                    how long a VM may be silent, unless lcow.timeout says it; else 300
  XDG_RUNTIME_DIR   sockets and logs of VMs that run; else the temporary folder
  XDG_STATE_HOME    records of VMs that failed; else ~/.local/state
  TMPDIR            the temporary folder; else /tmp
  NO_COLOR          no colours, if it is set; CLICOLOR_FORCE=1: also where no terminal is",
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the help of each command calls the options that all have: they come after its own.
const HEADING: &str = "Common options";

/// Options that every command has, before its name or after it.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Print the result as JSON on stdout, and what happens before it as JSON lines on stderr
    #[arg(long, global = true, help_heading = HEADING)]
    pub(crate) json: bool,
    /// Say more about what is done, on stderr: -v for steps, -vv for details, -vvv for everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = HEADING)]
    pub(crate) verbose: u8,
    /// Show no progress, no warnings and no closing line, only results and errors
    #[arg(short, long, global = true, help_heading = HEADING)]
    pub(crate) quiet: bool,
    /// The form of what -v shows; by default text, with --json json
    #[arg(long, global = true, value_name = "FORMAT", help_heading = HEADING)]
    pub(crate) log_format: Option<LogFormat>,
}
