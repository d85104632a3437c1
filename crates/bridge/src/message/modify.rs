//! `ModifySettings`: disks, overlays and shares come and go.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RequestBase, is_zero, json::from_value};
use crate::{Error, ErrorKind, Result};

/// Adds, removes or updates a resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ModifyRequest {
    /// What every request has.
    #[serde(flatten)]
    pub base: RequestBase,
    /// Which, and how.
    #[serde(rename = "Request")]
    pub change: ModifySettings,
}

/// Which resource, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ModifySettings {
    /// What to do with it.
    pub request_type: RequestType,
    /// What it is.
    pub resource_type: ResourceType,
    /// Its own document.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub settings: Value,
}

/// What to do with a resource. Unknown values survive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestType(pub String);

impl RequestType {
    /// Bring it; also what an absent value means.
    pub const ADD: &str = "Add";
    /// Take it away.
    pub const REMOVE: &str = "Remove";
    /// Change it.
    pub const UPDATE: &str = "Update";

    /// [`RequestType::ADD`] as a value.
    #[must_use]
    pub fn add() -> Self {
        Self::default()
    }

    /// [`RequestType::UPDATE`] as a value.
    #[must_use]
    pub fn update() -> Self {
        Self(Self::UPDATE.to_owned())
    }

    /// [`RequestType::REMOVE`] as a value.
    #[must_use]
    pub fn remove() -> Self {
        Self(Self::REMOVE.to_owned())
    }
}

impl Default for RequestType {
    fn default() -> Self {
        Self(Self::ADD.to_owned())
    }
}

impl fmt::Display for RequestType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a resource is. Unknown values survive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceType(pub String);

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A resource that is known, with its settings.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Modification {
    /// A disk's file system, at a path.
    MappedVirtualDisk(Box<MappedVirtualDisk>),
    /// A disk itself.
    ScsiDevice(ScsiDevice),
    /// An overlay of layers.
    CombinedLayers(CombinedLayers),
    /// A folder of the host.
    MappedDirectory(MappedDirectory),
    /// What a container may use.
    ContainerConstraints(ContainerConstraints),
    /// A resource of the protocol whose settings are not read here.
    Other,
}

impl Modification {
    fn resource_type(&self) -> &'static str {
        match self {
            Self::MappedVirtualDisk(_) => "MappedVirtualDisk",
            Self::ScsiDevice(_) => "SCSIDevice",
            Self::CombinedLayers(_) => "CombinedLayers",
            Self::MappedDirectory(_) => "MappedDirectory",
            Self::ContainerConstraints(_) => "ContainerConstraints",
            Self::Other => "",
        }
    }
}

/// Resources of the protocol whose settings are not read here.
const OTHER: [&str; 6] = [
    "VPMemDevice",
    "Network",
    "SecurityPolicy",
    "SecurityPolicyFragment",
    "VPCIDevice",
    "PodCgroupMemoryLimit",
];

impl ModifySettings {
    /// The change of a known resource. [`Modification::Other`] has no settings to send.
    ///
    /// # Errors
    /// [`ErrorKind::Json`] when a value has no JSON form.
    pub fn new(request_type: RequestType, modification: &Modification) -> Result<Self> {
        let settings = match modification {
            Modification::MappedVirtualDisk(settings) => serde_json::to_value(settings),
            Modification::ScsiDevice(settings) => serde_json::to_value(settings),
            Modification::CombinedLayers(settings) => serde_json::to_value(settings),
            Modification::MappedDirectory(settings) => serde_json::to_value(settings),
            Modification::ContainerConstraints(settings) => serde_json::to_value(settings),
            Modification::Other => Ok(Value::Null),
        };
        Ok(Self {
            request_type,
            resource_type: ResourceType(modification.resource_type().to_owned()),
            settings: settings.map_err(|error| Error::json("settings have no JSON form", error))?,
        })
    }

    /// Reads the settings by the resource's type.
    ///
    /// # Errors
    /// [`ErrorKind::Unexpected`] for an unknown resource, [`ErrorKind::Json`] when the settings
    /// are not those of the resource.
    pub fn modification(&self) -> Result<Modification> {
        fn read<T: serde::de::DeserializeOwned>(name: &str, settings: &Value) -> Result<T> {
            from_value(settings.clone()).map_err(|error| {
                Error::json(format!("invalid JSON in the settings of {name}"), error)
            })
        }
        let name = self.resource_type.0.as_str();
        Ok(match name {
            "MappedVirtualDisk" => {
                Modification::MappedVirtualDisk(Box::new(read(name, &self.settings)?))
            }
            "SCSIDevice" => Modification::ScsiDevice(read(name, &self.settings)?),
            "CombinedLayers" => Modification::CombinedLayers(read(name, &self.settings)?),
            "MappedDirectory" => Modification::MappedDirectory(read(name, &self.settings)?),
            "ContainerConstraints" => {
                Modification::ContainerConstraints(read(name, &self.settings)?)
            }
            _ if OTHER.contains(&name) => Modification::Other,
            _ => {
                return Err(Error::new(
                    ErrorKind::Unexpected,
                    format!("invalid ResourceType {name:?}"),
                ));
            }
        })
    }
}

/// A disk's file system, at a path. Zero values are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MappedVirtualDisk {
    /// Where in the guest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mount_path: String,
    /// The LUN on its controller.
    #[serde(skip_serializing_if = "is_zero")]
    pub lun: u8,
    /// The controller's number.
    #[serde(skip_serializing_if = "is_zero")]
    pub controller: u8,
    /// The partition's number; 0 is the whole disk.
    #[serde(skip_serializing_if = "is_zero")]
    pub partition: u64,
    /// Do not write to it.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only: bool,
    /// It is to be encrypted.
    #[serde(skip_serializing_if = "is_zero")]
    pub encrypted: bool,
    /// Mount options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// A symbolic link to the device instead of a mount.
    #[serde(skip_serializing_if = "is_zero")]
    pub block_dev: bool,
    /// How the device is protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verity_info: Option<VerityInfo>,
    /// Make the file system if there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub ensure_filesystem: bool,
    /// The file system's type; empty is `ext4`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filesystem: String,
    /// How many bytes the disk has; 0 when the host does not say. It is not in the documents: an agent
    /// that knows it takes no other disk for this one, and the others do not look at it.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_in_bytes: u64,
}

/// The dm-verity protection of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VerityInfo {
    /// The size of the file system in bytes; the tree follows.
    #[serde(rename = "Ext4SizeInBytes")]
    pub ext4_size_in_bytes: i64,
    /// The version of the tree's format.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: i64,
    /// The hash algorithm.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub algorithm: String,
    /// Whether a superblock stands before the tree.
    #[serde(skip_serializing_if = "is_zero")]
    pub super_block: bool,
    /// The root hash, in hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub root_digest: String,
    /// The salt, in hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub salt: String,
    /// The block size in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub block_size: i64,
}

/// A disk itself: removed before the host detaches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ScsiDevice {
    /// The controller's number.
    #[serde(skip_serializing_if = "is_zero")]
    pub controller: u8,
    /// The LUN on it.
    #[serde(skip_serializing_if = "is_zero")]
    pub lun: u8,
}

/// An overlay of layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CombinedLayers {
    /// The container that it is for.
    #[serde(rename = "ContainerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// Where the overlay is mounted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_root_path: String,
    /// The layers, topmost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
    /// Where `upper` and `work` are made; empty makes the overlay read-only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scratch_path: String,
}

/// One layer of an overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Layer {
    /// Its id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Where it is mounted.
    pub path: String,
}

/// A folder of the host, shared over 9p.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MappedDirectory {
    /// Where in the guest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mount_path: String,
    /// The host's port.
    #[serde(skip_serializing_if = "is_zero")]
    pub port: u32,
    /// Which share.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub share_name: String,
    /// Do not write to it.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only: bool,
}

/// What a container may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConstraints {
    /// The OCI specification's `linux.resources`.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub linux: Value,
}
