//! What PAX records say about an entry.

use std::collections::BTreeMap;

use opengcs_ext4::Timestamp;

use crate::tar::acl;
use crate::tar::pax;
use crate::tar::sparse::PaxSparse;
use crate::{Error, Result};

/// The values that count, once all records have been taken.
#[derive(Default)]
pub(super) struct Values {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) atime: Option<Timestamp>,
    pub(super) ctime: Option<Timestamp>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: PaxSparse,
    /// Numbers of a device that the header has no room for, as star and libarchive tell them.
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    /// The xattrs that access control lists in text form would have become, had they been complete.
    pub(super) acl: Vec<&'static [u8]>,
    /// Whether there is a list of the kind that `NFSv4` and ZFS have.
    pub(super) has_ace: bool,
}

impl Values {
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let bad = || {
            let key = String::from_utf8_lossy(key).into_owned();
            Error::corrupt(format!(
                "PAX record {key:?} has a value that makes no sense"
            ))
        };
        let bytes = || (!value.is_empty()).then(|| value.to_vec());
        let number = || match value {
            [] => Ok(None),
            text => pax::decimal(text).map(Some).ok_or_else(bad),
        };
        let time = || match value {
            [] => Ok(None),
            text => pax::time(text).map(Some).ok_or_else(bad),
        };
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.link = bytes(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = time()?,
            b"atime" => self.atime = time()?,
            b"ctime" => self.ctime = time()?,
            b"SCHILY.devmajor" => self.major = number()?,
            b"SCHILY.devminor" => self.minor = number()?,
            b"SCHILY.acl.access" => self.take_acl(b"system.posix_acl_access", value),
            b"SCHILY.acl.default" => self.take_acl(b"system.posix_acl_default", value),
            b"SCHILY.acl.ace" => self.has_ace = !value.is_empty(),
            // How GNU tar and star tell the label; on disk it ends with a zero byte.
            b"RHT.security.selinux" => {
                if !value.is_empty() {
                    let label = [value.strip_suffix(b"\0").unwrap_or(value), b"\0"].concat();
                    let name = b"security.selinux".to_vec();
                    self.xattrs.entry(name).or_insert(label);
                }
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(pax::unescape_name(name), value.to_vec());
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = pax::url_decode(name).ok_or_else(bad)?;
                    let value = pax::base64(value).ok_or_else(bad)?;
                    // The plain form of the same attribute, where both are there, is the safer one.
                    self.xattrs.entry(name).or_insert(value);
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(name, value).ok_or_else(bad)?;
                }
            }
        }
        Ok(())
    }

    /// The xattr of the same meaning, where both are there, is the more exact one.
    fn take_acl(&mut self, name: &'static [u8], text: &[u8]) {
        match acl::parse(text) {
            _ if text.is_empty() => {}
            // The mode says it already; a folder's default list says something all the same.
            Some(acl) if acl.minimal && name.ends_with(b"access") => {}
            Some(acl) => {
                self.xattrs.entry(name.to_vec()).or_insert(acl.value);
            }
            None => self.acl.push(name),
        }
    }
}
