//! What a conversion's receipt says, and whether an image and a tar are still those that it was given for.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::control::{Control, Meter, Progress};
use crate::decompress::Decompressor;
use crate::digest::{self, Hashed};
use crate::hold::Use;
use crate::unpack::TarWhiteouts;
use crate::verity::{self, Verity};
use crate::{Compression, Converted, Error, NewFile, Result, TarToDiskOptions, chain};

/// The form of receipts that is written and read.
const FORM: u32 = 1;
/// The most bytes of a receipt.
const LONGEST: u64 = 1 << 20;

/// What a tar became, for whoever keeps the image: which tar, which image, and how.
///
/// Digests are SHA-256 as OCI writes them, `sha256:…`, of bytes as they are in files: `sha256sum` gives
/// the same. Those of an image are the disk file's, whatever its format; a hole counts as the zeros that
/// it reads as.
///
/// ```
/// use opengcs_layer::{Control, Receipt, TarToDiskOptions, tar_to_disk, verify_image};
/// # let folder = tempfile::tempdir()?;
/// # let (disk, file) = (folder.path().join("layer.vhd"), folder.path().join("receipt.json"));
/// let options = TarToDiskOptions { digests: true, ..TarToDiskOptions::default() };
/// let converted = tar_to_disk(&[0; 1024][..], &disk, &options)?;
/// let receipt = Receipt::new(&converted, &options)?;
/// let text = receipt.to_json();
/// assert!(verify_image(&disk, &Receipt::parse(text.as_bytes())?, &Control::new())?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// The form of the receipt: 1.
    pub receipt: u32,
    /// The version of opengcs that made the image.
    pub opengcs: String,
    /// The tar.
    pub tar: ReceiptTar,
    /// The disk file.
    pub image: ReceiptImage,
    /// The dm-verity tree in it, if there is one.
    pub verity: Option<Verity>,
    /// The options that decide the image's bytes.
    pub options: ReceiptOptions,
}

/// The tar that an image was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReceiptTar {
    /// Of its bytes as they came, compressed or not.
    pub digest: String,
    /// How many these were.
    pub size: u64,
    /// How it came.
    pub compression: Compression,
    /// Of its bytes uncompressed: OCI's `DiffID`.
    pub diff_id: String,
    /// How many these were.
    pub uncompressed_size: u64,
    /// Its entries.
    pub entries: u64,
}

/// An image that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReceiptImage {
    /// Of the disk file's bytes.
    pub digest: String,
    /// How many these are.
    pub size: u64,
    /// `vhd`, `vhdx` or `raw`.
    pub format: String,
    /// Bytes of the disk in it.
    pub virtual_size: u64,
}

/// What was chosen of an image. Without it, the same tar gives other bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReceiptOptions {
    /// `overlay` or `keep`.
    pub whiteouts: String,
    /// Whether backslashes separated the parts of paths.
    pub backslash_paths: bool,
    /// Bytes of the file system, where they were chosen.
    pub size: Option<u64>,
    /// Bytes of the journal, if there is one.
    pub journal: Option<u64>,
    /// Bytes in a block.
    pub block_size: u32,
    /// The label.
    pub label: String,
    /// The UUID of file system and disk.
    pub uuid: String,
    /// Whether there is a `lost+found` that the tar did not bring.
    pub lost_found: bool,
    /// Whether small files and directories lie in their inodes.
    pub inline_data: bool,
    /// The time of creation that was written down, in seconds since 1970.
    pub created: i64,
    /// Whether a dm-verity tree was asked for.
    pub verity: bool,
}

impl Receipt {
    /// The receipt of a conversion that was made with these options, which asked for digests.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when they did not.
    pub fn new(converted: &Converted, options: &TarToDiskOptions) -> Result<Self> {
        let digests = converted.digests.as_ref().ok_or_else(|| {
            Error::invalid("a receipt needs digests, and the conversion was not asked for them")
        })?;
        let filesystem = &options.ext4.filesystem;
        Ok(Self {
            receipt: FORM,
            opengcs: env!("CARGO_PKG_VERSION").into(),
            tar: ReceiptTar {
                digest: digests.tar.clone(),
                size: digests.tar_size,
                compression: converted.compression,
                diff_id: digests.diff_id.clone(),
                uncompressed_size: converted.tar_bytes,
                entries: converted.entries,
            },
            image: ReceiptImage {
                digest: digests.image.clone(),
                size: converted.size,
                format: options.format.to_string(),
                virtual_size: converted.virtual_size,
            },
            verity: converted.verity.clone(),
            options: ReceiptOptions {
                whiteouts: match options.ext4.whiteouts {
                    TarWhiteouts::Overlay => "overlay".into(),
                    TarWhiteouts::Keep => "keep".into(),
                },
                backslash_paths: options.ext4.backslash_paths,
                size: filesystem.size,
                journal: filesystem.journal,
                block_size: filesystem.block_size,
                label: filesystem.label.clone(),
                uuid: filesystem.uuid().to_string(),
                lost_found: filesystem.lost_found,
                inline_data: filesystem.inline_data,
                created: filesystem.created,
                verity: options.verity,
            },
        })
    }

    /// The receipt as text, JSON with a line end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Writes the receipt into a file that was begun before, and gives that its name.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn publish(&self, file: NewFile) -> Result<()> {
        io::Write::write_all(&mut file.file(), self.to_json().as_bytes())
            .map_err(|error| Error::io_at("cannot write the receipt", file.target(), error))?;
        file.publish()
    }

    /// Reads a receipt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) for what is none, and
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for one of a later form.
    pub fn parse(text: &[u8]) -> Result<Self> {
        /// What every form has.
        #[derive(Deserialize)]
        struct Form {
            receipt: u32,
        }
        let none = |error| Error::corrupt("it is no receipt").with_source(error);
        let Form { receipt } = serde_json::from_slice(text).map_err(none)?;
        if receipt != FORM {
            return Err(Error::unsupported(format!(
                "the receipt is of form {receipt}, and {FORM} is known: a later opengcs wrote it"
            )));
        }
        serde_json::from_slice(text).map_err(none)
    }

    /// Reads a receipt from a file.
    ///
    /// # Errors
    ///
    /// As for [`Receipt::parse`], and those of the file.
    pub fn read(path: &Path) -> Result<Self> {
        File::open(path)
            .map_err(|error| Error::io("cannot open", error))
            .and_then(Self::read_from)
            .map_err(|error| error.with_path(path))
    }

    /// Reads a receipt to the end of a stream.
    ///
    /// # Errors
    ///
    /// As for [`Receipt::parse`], and those of the stream.
    pub fn read_from(input: impl Read) -> Result<Self> {
        let mut text = Vec::new();
        input
            .take(LONGEST + 1)
            .read_to_end(&mut text)
            .map_err(|error| Error::io("cannot read", error))?;
        if text.len() as u64 > LONGEST {
            return Err(Error::corrupt("it is no receipt: it is too long for one"));
        }
        Self::parse(&text)
    }
}

/// Something that is not as a receipt says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// Which of the receipt's fields: `image.size`, `image.digest`, `verity`, `tar.size`, `tar.digest`,
    /// `tar.diff_id`.
    pub field: &'static str,
    /// What the receipt says; nothing for `verity`, where [`Difference::found`] says it all.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            field,
            expected,
            found,
        } = self;
        match *field {
            "image.size" => write!(f, "the image has {found} bytes, not {expected}"),
            "tar.size" => write!(f, "the tar has {found} bytes, not {expected}"),
            "image.digest" => write!(f, "the image's digest is {found}, not {expected}"),
            "tar.digest" => write!(f, "the tar's digest is {found}, not {expected}"),
            "tar.diff_id" => write!(
                f,
                "the uncompressed tar's digest is {found}, not {expected}"
            ),
            _ => f.write_str(found),
        }
    }
}

fn compare(
    differences: &mut Vec<Difference>,
    field: &'static str,
    expected: &impl ToString,
    found: &impl ToString,
) {
    let (expected, found) = (expected.to_string(), found.to_string());
    if expected != found {
        differences.push(Difference {
            field,
            expected,
            found,
        });
    }
}

/// Says in what an image is not the one of its receipt; nothing if it is the same.
///
/// Its length is looked at first, then its digest; with a hash tree, all data are checked against the tree
/// and the tree against the root hash of the receipt, which tells where a change is.
///
/// # Errors
///
/// The image or its disk cannot be read, or a machine is writing to it.
pub fn verify_image(path: &Path, receipt: &Receipt, control: &Control) -> Result<Vec<Difference>> {
    let at = |error: Error| error.with_path(path);
    let mut differences = Vec::new();
    let is_folder = || Error::invalid("it is a folder, not a disk file").with_path(path);
    let file = match Use::Still.options().open(path) {
        // Windows opens no folder as a file, and says only that access is denied.
        Err(_) if path.is_dir() => return Err(is_folder()),
        file => file.map_err(|error| Error::io_at("cannot open", path, error))?,
    };
    let metadata = file.metadata();
    let metadata = metadata.map_err(|error| Error::io_at("cannot read", path, error))?;
    if metadata.is_dir() {
        return Err(is_folder());
    }
    Use::Still.hold(&file, path)?;
    compare(
        &mut differences,
        "image.size",
        &receipt.image.size,
        &metadata.len(),
    );
    if !differences.is_empty() {
        return Ok(differences);
    }
    let (digest, _) = digest::of_file(&file, control).map_err(at)?;
    compare(
        &mut differences,
        "image.digest",
        &receipt.image.digest,
        &digest,
    );
    if let Some(verity) = &receipt.verity {
        // A file that is no disk any more has told so by its digest.
        let disk = match chain::open_still(path, &[]) {
            Ok(chain) => chain.disk,
            Err(_) if !differences.is_empty() => return Ok(differences),
            Err(error) => return Err(error),
        };
        if let Some(found) = verity::check(&disk, verity, control).map_err(at)? {
            differences.push(Difference {
                field: "verity",
                expected: String::new(),
                found,
            });
        }
    }
    Ok(differences)
}

/// Says in what a tar is not the one of a receipt; nothing if it is the same. A tar that is the same but
/// for its compression differs in size and digest, and not in its `DiffID`.
///
/// # Errors
///
/// The input cannot be read. What its compression cannot undo is a difference, not an error.
pub fn verify_tar(
    input: impl Read,
    receipt: &Receipt,
    control: &Control,
) -> Result<Vec<Difference>> {
    let mut differences = Vec::new();
    let mut input = Hashed::new(input, true);
    let inflated = inflate(&mut input, control);
    if let Err(error) = &inflated
        && !matches!(
            error.kind(),
            crate::ErrorKind::Corrupt | crate::ErrorKind::Unsupported
        )
    {
        return inflated.map(|_| differences);
    }
    // What was not understood was not read to its end.
    drain(&mut input, control)?;
    if let Some((digest, size)) = input.finish()? {
        compare(&mut differences, "tar.size", &receipt.tar.size, &size);
        compare(&mut differences, "tar.digest", &receipt.tar.digest, &digest);
    }
    let found = inflated.unwrap_or_else(|error| error.to_string());
    compare(
        &mut differences,
        "tar.diff_id",
        &receipt.tar.diff_id,
        &found,
    );
    Ok(differences)
}

/// The digest of what an input is uncompressed.
fn inflate(input: impl Read, control: &Control) -> Result<String> {
    let mut plain = Hashed::new(Decompressor::new(input)?, true);
    drain(&mut plain, control)?;
    Ok(plain
        .finish()?
        .map(|(digest, _)| digest)
        .unwrap_or_default())
}

fn drain(input: &mut impl Read, control: &Control) -> Result<()> {
    let mut meter = Meter::new(control);
    let mut buffer = vec![0; 128 << 10];
    let mut bytes = 0;
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => bytes += read as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("cannot read the tar", error)),
        }
        meter.step(Progress { entries: 0, bytes })?;
    }
}
