//! An OCI runtime for containers, with the libraries that it needs, as they lie on this host.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::elf::Elf;
use super::GuestFile;
use crate::environment::Environment;
use crate::error::{Error, Result};

/// Where the guest has it. The agent looks for these names.
const GUEST_FOLDER: &str = "bin";

/// The runtimes that the agent knows how to call.
const KNOWN: [&str; 2] = ["crun", "runc"];

/// Where programs are that are not for everybody.
const MORE_PLACES: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// Where loaders look for libraries without being told.
const LIBRARIES: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib/x86_64-linux-gnu",
    "/usr/local/lib",
];

/// No library is near this many.
const MOST_LIBRARIES: usize = 64;

/// Finds a runtime: a file by its path, or this host's by its name.
///
/// # Errors
/// It is not there, or it is none that the agent can call.
pub fn runtime_path(given: &Path, environment: &Environment) -> Result<PathBuf> {
    let name = given.file_name().and_then(|name| name.to_str());
    let Some(name) = name.filter(|name| KNOWN.contains(name)) else {
        return Err(Error::invalid(format!(
            "{} is no runtime that the agent can call: it must be called {}",
            given.display(),
            KNOWN.join(" or ")
        )));
    };
    if given.components().count() > 1 {
        return if given.is_file() {
            Ok(given.to_owned())
        } else {
            Err(Error::not_found(format!(
                "there is no runtime {}",
                given.display()
            )))
        };
    }
    let path = environment.get("PATH");
    let folders = path.iter().flat_map(std::env::split_paths);
    folders
        .chain(MORE_PLACES.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::not_found(format!("there is no {name} on this host"))
                .hint("install the package of that name, or give the runtime's path")
        })
}

/// The runtime and every library that it needs, as files of the guest.
pub(super) fn gather(program: &Path) -> Result<Vec<GuestFile>> {
    let name = program.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::invalid("a runtime without a name"))?;
    let content = read(program)?;
    let mut wanted = needs(program, &content)?;
    let mut files = vec![GuestFile {
        path: format!("{GUEST_FOLDER}/{name}"),
        mode: 0o755,
        content,
    }];
    let mut found: BTreeMap<String, ()> = BTreeMap::new();
    while let Some(need) = wanted.pop() {
        if found.insert(need.clone(), ()).is_some() {
            continue;
        }
        if found.len() > MOST_LIBRARIES {
            return Err(Error::invalid(format!(
                "{} needs more than {MOST_LIBRARIES} libraries",
                program.display()
            )));
        }
        let library = find(&need).ok_or_else(|| {
            Error::not_found(format!(
                "{} needs {need}, which this host does not have",
                program.display()
            ))
            .hint("install the runtime's package with what it depends on, or give a static runtime")
        })?;
        let content = read(&library)?;
        wanted.extend(needs(&library, &content)?);
        files.push(GuestFile {
            path: library.to_string_lossy().trim_start_matches('/').to_owned(),
            mode: 0o755,
            content,
        });
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

fn find(need: &str) -> Option<PathBuf> {
    if need.starts_with('/') {
        // The loader itself, which programs name by its path.
        return Some(PathBuf::from(need)).filter(|path| path.is_file());
    }
    LIBRARIES
        .iter()
        .map(|folder| Path::new(folder).join(need))
        .find(|path| path.is_file())
}

/// The loader and the libraries that a file names.
fn needs(path: &Path, content: &[u8]) -> Result<Vec<String>> {
    let named = Elf::parse(content).and_then(|elf| {
        let mut named = elf.needed()?;
        named.extend(elf.interpreter()?);
        Some(named)
    });
    let odd = |name: &String| name.is_empty() || name.contains("..");
    match named {
        Some(named) if !named.iter().any(odd) => Ok(named),
        _ => Err(Error::invalid(format!(
            "{} is not a 64-bit Linux program",
            path.display()
        ))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Error::io("read", path, error))
}
