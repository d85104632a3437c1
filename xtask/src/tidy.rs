//! The house rules that no compiler holds: crates on their floors, files of a readable size.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::run;

/// Package, floor, and the packages of the workspace that it may use.
const FLOORS: &[(&str, u8, &[&str])] = &[
    ("opengcs-ext4", 0, &[]),
    ("opengcs-vhd", 0, &[]),
    ("opengcs-bridge", 0, &[]),
    ("opengcs-layer", 1, &["opengcs-ext4", "opengcs-vhd"]),
    ("opengcs-machine", 1, &[]),
    ("opengcs-agent", 2, &["opengcs-bridge", "opengcs-layer"]),
    (
        "opengcs",
        2,
        &["opengcs-layer", "opengcs-machine", "opengcs-bridge"],
    ),
    ("opengcs-monitor", 3, &["opengcs"]),
    ("opengcs-cli", 4, &["opengcs", "opengcs-monitor"]),
    ("vmtest", 5, &["opengcs"]),
    ("xtask", 5, &[]),
];

/// What floor 0 must not contain: clocks, randomness, async, logs and the system.
const NOT_ON_FLOOR_0: &[&str] = &[
    "tokio",
    "tracing",
    "log",
    "rand",
    "getrandom",
    "uuid",
    "rustix",
    "libc",
    "nix",
    "tempfile",
];

/// A file past this many lines decides two things.
const LONGEST_FILE: usize = 600;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Fails with every rule that is broken, not only the first.
pub(crate) fn run() -> Result<()> {
    let json = run::output(run::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Metadata = serde_json::from_str(&json).context("cannot read cargo metadata")?;
    let mut broken = Vec::new();
    for package in &metadata.packages {
        floors(package, &mut broken);
    }
    for package in &metadata.packages {
        let folder = package.manifest_path.parent().unwrap_or(Path::new("."));
        sizes(folder, &mut broken)?;
    }
    if broken.is_empty() {
        println!(
            "tidy: {} packages hold the house rules",
            metadata.packages.len()
        );
        return Ok(());
    }
    bail!("tidy:\n  {}", broken.join("\n  "))
}

fn floors(package: &Package, broken: &mut Vec<String>) {
    let name = package.name.as_str();
    let rules: BTreeMap<_, _> = FLOORS
        .iter()
        .map(|(n, floor, may)| (*n, (*floor, *may)))
        .collect();
    let Some((floor, may)) = rules.get(name) else {
        broken.push(format!(
            "{name} has no floor: add it to the table in xtask/src/tidy.rs"
        ));
        return;
    };
    let shipped = package
        .dependencies
        .iter()
        .filter(|d| d.kind.as_deref() != Some("dev"));
    for dependency in shipped {
        let used = dependency.name.as_str();
        if rules.contains_key(used) && !may.contains(&used) {
            broken.push(format!("{name} (floor {floor}) must not use {used}"));
        }
        if *floor == 0 && NOT_ON_FLOOR_0.contains(&used) {
            broken.push(format!("{name} is on floor 0 and must not use {used}"));
        }
    }
    let lib = package.manifest_path.with_file_name("src").join("lib.rs");
    let forbids =
        std::fs::read_to_string(lib).is_ok_and(|text| text.contains("#![forbid(unsafe_code)]"));
    if *floor == 0 && !forbids {
        broken.push(format!("{name} is on floor 0 and must forbid unsafe code"));
    }
}

fn sizes(folder: &Path, broken: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {folder:?}"))? {
        let path = entry?.path();
        if path.is_dir() {
            sizes(&path, broken)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let lines = text.lines().count();
            if lines > LONGEST_FILE {
                broken.push(format!("{} has {lines} lines: split it", path.display()));
            }
            if path.ends_with("mod.rs") {
                broken.push(format!(
                    "{}: modules are `name.rs` + `name/`",
                    path.display()
                ));
            }
        }
    }
    Ok(())
}
