//! What of a container's documents the agent reads and changes before the runtime gets them.

use std::{fs, path::PathBuf};

use opengcs_bridge::message::{ContainerConfig, OciProcess, ProcessParameters};
use serde_json::{Map, Value, json};

use crate::serve::{Outcome, execute::identity, failed, invalid, mounts::checked};

/// A container's documents.
pub(super) struct Document {
    bundle: PathBuf,
    config: Value,
    /// Its root file system, as the VM sees it.
    pub(super) root: PathBuf,
    /// The `process` of its specification.
    pub(super) process: Value,
    pub(super) terminal: bool,
}

/// Reads and completes what `Create` brings.
pub(super) fn container(id: &str, config: &ContainerConfig) -> Outcome<Document> {
    let version = config.schema_version;
    if version.major != 0 && (version.major, version.minor) < (2, 1) {
        return Err(invalid(format!(
            "container documents of schema {}.{} are not read, only those of 2.1",
            version.major, version.minor
        )));
    }
    let bundle = checked(&config.oci_bundle_path)?;
    let Value::Object(mut specification) = config.oci_specification.clone() else {
        return Err(invalid("Create without an OCI specification"));
    };
    let given = specification
        .get("root")
        .and_then(|root| root.get("path"))
        .and_then(Value::as_str)
        .ok_or_else(|| invalid("the OCI specification has no root.path"))?;
    // A relative one is within the bundle; `join` keeps absolute ones.
    let root = bundle.join(given);
    let process = specification
        .get_mut("process")
        .filter(|process| process.is_object())
        .ok_or_else(|| invalid("the OCI specification has no process"))?;
    name_to_numbers(process, &root)?;
    let process = process.clone();
    let terminal = process.get("terminal").and_then(Value::as_bool);
    if let Some(linux) = specification
        .get_mut("linux")
        .and_then(Value::as_object_mut)
    {
        let path = linux.entry("cgroupsPath").or_insert(Value::Null);
        if path.as_str().is_none_or(str::is_empty) {
            *path = json!(format!("/containers/{id}"));
        }
    }
    Ok(Document {
        bundle,
        config: Value::Object(specification),
        root,
        process,
        terminal: terminal.unwrap_or(false),
    })
}

impl Document {
    /// Puts it where the runtime reads it. Gives the bundle's folder.
    pub(super) fn write(&self) -> Outcome<PathBuf> {
        let bundle = &self.bundle;
        let path = bundle.join("config.json");
        fs::create_dir_all(bundle)
            .and_then(|()| fs::write(&path, self.config.to_string()))
            .map_err(|error| failed(format!("write {}: {error}", path.display())))?;
        Ok(bundle.clone())
    }
}

/// The document of a process that is run in a container beside its first one: its own, or the first
/// one's with another command.
pub(super) fn further(
    parameters: &ProcessParameters,
    template: &Value,
    root: &std::path::Path,
) -> Outcome<Value> {
    let mut process = match &parameters.oci_process {
        Value::Null => from_template(parameters, template)?,
        given => given.clone(),
    };
    let read =
        OciProcess::parse(&process).map_err(|error| opengcs_bridge::Failure::from(&error))?;
    if read.args.first().is_none_or(String::is_empty) {
        return Err(invalid("there is no command to run"));
    }
    let members = process
        .as_object_mut()
        .ok_or_else(|| invalid("the OCI process is not an object"))?;
    if read.cwd.is_empty() {
        members.insert("cwd".to_owned(), json!("/"));
    }
    if parameters.emulate_console {
        members.insert("terminal".to_owned(), json!(true));
    }
    // Runtimes want one, and a sender leaves zeros out.
    members.entry("user").or_insert(json!({}));
    name_to_numbers(&mut process, root)?;
    Ok(process)
}

fn from_template(parameters: &ProcessParameters, template: &Value) -> Outcome<Value> {
    let mut process = template.as_object().cloned().unwrap_or_else(Map::new);
    let words = crate::serve::execute::words(parameters)?;
    process.insert("args".to_owned(), json!(words));
    process.insert("terminal".to_owned(), json!(parameters.emulate_console));
    if !parameters.environment.is_empty() {
        let variable = |(name, value)| format!("{name}={value}");
        let all: Vec<String> = parameters.environment.iter().map(variable).collect();
        process.insert("env".to_owned(), json!(all));
    }
    if !parameters.working_directory.is_empty() {
        process.insert("cwd".to_owned(), json!(parameters.working_directory));
    }
    Ok(Value::Object(process))
}

/// Looks up a process's user by name in its container's own lists.
fn name_to_numbers(process: &mut Value, root: &std::path::Path) -> Outcome<()> {
    let Some(user) = process.get_mut("user").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    // Zeros that were left out are said: runtimes do not guess them.
    user.entry("uid").or_insert(json!(0));
    user.entry("gid").or_insert(json!(0));
    let Some(name) = user.remove("username") else {
        return Ok(());
    };
    let name = name.as_str().unwrap_or_default();
    if name.is_empty() {
        return Ok(());
    }
    let lists = identity::lists(root)
        .map_err(|error| failed(format!("read the users in {}: {error}", root.display())))?;
    let found = identity::look_up(name, &lists).map_err(failed)?;
    user.insert("uid".to_owned(), json!(found.uid));
    user.insert("gid".to_owned(), json!(found.gid));
    if !found.groups.is_empty() {
        user.insert("additionalGids".to_owned(), json!(found.groups));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(specification: Value) -> ContainerConfig {
        ContainerConfig {
            oci_bundle_path: "/run/gcs/c/x".to_owned(),
            oci_specification: specification,
            ..ContainerConfig::default()
        }
    }

    #[test]
    fn what_is_left_out_is_completed_and_the_rest_is_kept() {
        let given = json!({
            "ociVersion": "1.0.2", "hooks": {"x": 1},
            "process": {"args": ["a"], "terminal": true, "user": {"uid": 7}},
            "root": {"path": "rootfs"}, "linux": {"cgroupsPath": ""}
        });
        let document = container("x", &config(given)).unwrap();
        assert_eq!(document.root, Path::new("/run/gcs/c/x/rootfs"));
        assert!(document.terminal);
        assert_eq!(document.config["linux"]["cgroupsPath"], "/containers/x");
        assert_eq!(document.config["hooks"]["x"], 1);
        assert_eq!(document.process["user"], json!({"uid": 7, "gid": 0}));
    }

    #[test]
    fn documents_that_make_no_container_are_refused() {
        let good = json!({"process": {"args": ["a"]}, "root": {"path": "/r"}});
        assert!(container("x", &config(good.clone())).is_ok());
        for bad in [
            Value::Null,
            json!([]),
            json!({"process": {}}),
            json!({"root": {"path": "/r"}}),
            json!({"process": 5, "root": {"path": "/r"}}),
        ] {
            assert!(container("x", &config(bad.clone())).is_err(), "{bad}");
        }
        let mut relative = config(good.clone());
        relative.oci_bundle_path = "a/../b".to_owned();
        assert!(container("x", &relative).is_err());
        let mut old = config(good);
        old.schema_version = opengcs_bridge::message::SchemaVersion { major: 1, minor: 0 };
        assert!(container("x", &old).is_err());
    }

    #[test]
    fn a_further_process_is_its_own_document_or_the_first_ones_with_another_command() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), "web:x:33:34::/:\n").unwrap();
        let template = json!({"args": ["init"], "cwd": "/srv", "env": ["A=1"], "terminal": true,
            "capabilities": {"bounding": []}, "user": {"uid": 5, "gid": 6}});
        let mut parameters = ProcessParameters {
            command_line: "ls '/a b'".to_owned(),
            ..ProcessParameters::default()
        };
        let made = further(&parameters, &template, root.path()).unwrap();
        assert_eq!(made["args"], json!(["ls", "/a b"]));
        assert_eq!(
            (&made["cwd"], &made["terminal"]),
            (&json!("/srv"), &json!(false))
        );
        assert_eq!(made["user"], json!({"uid": 5, "gid": 6}));

        parameters.oci_process = json!({"args": ["id"], "user": {"username": "web"}});
        let made = further(&parameters, &template, root.path()).unwrap();
        assert_eq!(
            made,
            json!({"args": ["id"], "cwd": "/", "user": {"uid": 33, "gid": 34}})
        );
        parameters.oci_process = json!({"args": ["id"], "user": {"username": "none"}});
        assert!(further(&parameters, &template, root.path()).is_err());
        parameters.oci_process = json!({"args": []});
        assert!(further(&parameters, &template, root.path()).is_err());
    }
}
