//! Packages for people without this repository: a tarball, and a `.deb` for Debian 12 and later.
//!
//! ```text
//! opengcs, gcs ──► Tree (what lies under a prefix) ──┬─► opengcs-VERSION-x86_64-linux.tar.gz
//! man pages, completions, licences ──────────────────┘└─► opengcs_VERSION-1_amd64.deb
//! ```
//!
//! Files are sorted, belong to root and carry the time of the last commit (or `SOURCE_DATE_EPOCH`), and
//! the programs do not name the folder they were built in.

mod clean_root;
mod deb;
mod notices;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::{guest, host, run};
use tree::Tree;

/// What `cargo xtask dist` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// Install the `.deb` in a fresh Debian 12 beside this system and use it there; needs root.
    #[arg(long = "try")]
    try_it: bool,
    /// Pack the unoptimised programs, to try the packaging alone.
    #[arg(long)]
    debug: bool,
}

/// The programs that are packed.
pub(crate) struct Programs {
    /// The command line.
    pub(crate) opengcs: PathBuf,
    /// The agent, which stands in every initrd.
    pub(crate) agent: PathBuf,
}

/// What came out.
pub(crate) struct Packages {
    /// The tarball.
    pub(crate) tarball: PathBuf,
    /// The package for Debian.
    pub(crate) deb: PathBuf,
}

/// Builds the programs, packs them, and says where the packages are.
pub(crate) fn run(options: &Options) -> Result<()> {
    host::ensure(host::DIST)?;
    let programs = if options.debug {
        guest::programs()?
    } else {
        build()?
    };
    let packages = pack(&programs)?;
    for package in [&packages.tarball, &packages.deb] {
        let size = fs::metadata(package)?.len();
        println!("{}: {:.1} MiB", package.display(), mib(size));
    }
    if options.try_it {
        clean_root::try_packages(&packages)?;
    }
    Ok(())
}

/// Tries the packaging with the programs that the tests have built; says why where it cannot be tried.
///
/// Returns whether it was tried.
pub(crate) fn trial() -> Result<bool> {
    if let Err(why) = clean_root::possible() {
        println!("left out: the package installed into a clean Debian, because {why:#}");
        return Ok(false);
    }
    host::ensure(host::DIST)?;
    clean_root::try_packages(&pack(&guest::programs()?)?)?;
    Ok(true)
}

/// Makes both packages of these programs.
fn pack(programs: &Programs) -> Result<Packages> {
    let folder = run::target_dir().join("packages");
    let staging = folder.join("staging");
    if staging.exists() {
        fs::remove_dir_all(&staging).with_context(|| format!("cannot empty {staging:?}"))?;
    }
    fs::create_dir_all(&staging).with_context(|| format!("cannot make {staging:?}"))?;
    let notices = notices::collect()?;
    let time = source_time()?;
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("opengcs-{version}-x86_64-linux");

    let loose = Tree::new(&staging.join(&name));
    loose.programs_and_manuals(programs)?;
    loose.notices("share/doc/opengcs", &notices)?;
    loose.documents("share/doc/opengcs")?;
    loose.seal(time)?;
    let tarball = folder.join(format!("{name}.tar.gz"));
    tree::tar(&staging, &name, time, &tarball)?;

    let deb = folder.join(format!("opengcs_{version}-1_amd64.deb"));
    let packed = Tree::new(&staging.join("deb/usr"));
    packed.programs_and_manuals(programs)?;
    packed.move_to("share/zsh/site-functions", "share/zsh/vendor-completions")?;
    packed.documents("share/doc/opengcs")?;
    deb::finish(&staging.join("deb"), programs, &notices, time, &deb)?;

    fs::remove_dir_all(&staging).with_context(|| format!("cannot remove {staging:?}"))?;
    Ok(Packages { tarball, deb })
}

/// Builds both programs for others: optimised, stripped, with no path of this machine in them.
///
/// In a target folder of its own: the flags differ from those of every other build.
fn build() -> Result<Programs> {
    let target = run::target_dir().join("dist");
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut flags = format!("--remap-path-prefix={}=/opengcs", run::root().display());
    if let Some(home) = home {
        flags.push_str(&format!(" --remap-path-prefix={}=/cargo", home.display()));
    }
    let agent = guest::build_agent_in(&target, &flags)?;
    let mut build = run::cargo();
    build.args(["build", "--quiet", "--package", "opengcs-cli", "--profile"]);
    build.args(["dist", "--target-dir"]).arg(&target);
    run::run(build.env("RUSTFLAGS", flags))?;
    Ok(Programs {
        opengcs: target.join("dist/opengcs"),
        agent,
    })
}

/// Seconds since 1970 that every file in the packages carries.
fn source_time() -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is {given:?}, which is no time"));
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]);
    run::output(git.current_dir(run::root()))
        .ok()
        .and_then(|time| time.trim().parse().ok())
        .context("without git, set SOURCE_DATE_EPOCH to the seconds since 1970 of this version")
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A program run for what it prints, in the order that the packages need: byte by byte.
fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {folder:?}"))?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {path:?}"))
}
