//! The licences of the crates that are linked into the programs: their terms ask to go with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::run;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// One text: the list of crates with their licences, then each different licence text once, with the
/// crates that it came with.
pub(super) fn collect() -> Result<String> {
    let mut command = run::cargo();
    command.args(["metadata", "--format-version", "1", "--locked"]);
    command.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let metadata: Metadata =
        serde_json::from_str(&run::output(&mut command)?).context("cannot read cargo metadata")?;
    let linked = linked(&metadata);
    let mut list = String::from("These crates are part of opengcs and gcs:\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata.packages {
        if package.source.is_none() || !linked.contains(&package.id) {
            continue;
        }
        let name = format!("{} {}", package.name, package.version);
        let Some(license) = package.license else {
            bail!("{name} does not say under which licence it is");
        };
        list.push_str(&format!("{name}: {license}\n"));
        for text in licence_texts(&package.manifest_path)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    for (text, crates) in texts {
        let line = "=".repeat(80);
        list.push_str(&format!("\n{line}\n{}\n{line}\n\n", crates.join(", ")));
        list.push_str(text.trim_end());
        list.push('\n');
    }
    Ok(list)
}

/// What the two programs are linked with, directly or not; tests and build scripts are no part of them.
fn linked(metadata: &Metadata) -> BTreeSet<String> {
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let mut waiting: Vec<&str> = metadata
        .packages
        .iter()
        .filter(|package| ["opengcs-cli", "opengcs-agent"].contains(&package.name.as_str()))
        .map(|package| package.id.as_str())
        .collect();
    let mut found = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !found.insert(id.to_owned()) {
            continue;
        }
        let dependencies = nodes.get(id).map_or(&[][..], |node| &node.deps);
        for dependency in dependencies {
            if dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()) {
                waiting.push(&dependency.pkg);
            }
        }
    }
    found
}

/// The files beside a manifest that speak of its licence.
fn licence_texts(manifest: &std::path::Path) -> Result<Vec<String>> {
    let folder = manifest.parent().context("a manifest lies in a folder")?;
    let mut texts = Vec::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_uppercase();
        let speaks = ["LICEN", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
        if path.is_file() && speaks.iter().any(|word| name.starts_with(word)) {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {path:?}"))?;
            texts.push(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"));
        }
    }
    Ok(texts)
}
