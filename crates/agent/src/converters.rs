//! The converters that hosts start by name: the host's own code, on standard input and output.

use std::{
    error::Error,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::fs::FileTypeExt as _,
    },
    path::{Path, PathBuf},
};

use opengcs_layer::{DiskToTarOptions, TarToDiskOptions, disk_to_tar, folder_to_tar, tar_to_disk};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is copied at a time, and the grain of holes.
const BLOCK: usize = 64 << 10;

/// Runs a converter by name. `None`: no converter has that name.
pub(crate) fn run(name: &str, arguments: &[OsString]) -> Option<std::result::Result<(), String>> {
    let outcome = match name {
        "tar2vhd" => tar2vhd(),
        "vhd2tar" => vhd2tar(),
        "exportSandbox" => export_sandbox(arguments),
        _ => return None,
    };
    Some(outcome.map_err(|error| in_full(&*error)))
}

/// An error with its causes, in one line.
fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.replace('\n', " ")
}

/// A tar on standard input becomes a fixed VHD on standard output. A VHD is finished at its
/// beginning, so it is kept in `$TMPDIR` (or `/tmp`) until it is whole.
fn tar2vhd() -> Result<()> {
    let spool = Spool::new();
    let options = TarToDiskOptions {
        sync: false,
        ..TarToDiskOptions::default()
    };
    tar_to_disk(stdin()?, &spool.path, &options)?;
    let mut disk = File::open(&spool.path)?;
    let mut out = stdout()?;
    io::copy(&mut disk, &mut out)?;
    Ok(())
}

/// A VHD on standard input becomes a tar on standard output. A pipe is first kept in `$TMPDIR`
/// (or `/tmp`), without its holes.
fn vhd2tar() -> Result<()> {
    let mut input = stdin()?;
    let kind = input.metadata()?.file_type();
    let source = if kind.is_file() || kind.is_block_device() {
        input
    } else {
        let spool = Spool::new();
        let mut file = File::create_new(&spool.path)
            .map_err(|error| format!("{}: {error}", spool.path.display()))?;
        copy_sparse(&mut input, &mut file)
            .map_err(|error| format!("{}: {error}", spool.path.display()))?;
        File::open(&spool.path)?
    };
    let path = format!("/proc/self/fd/{}", source.as_raw_fd());
    disk_to_tar(Path::new(&path), stdout()?, &DiskToTarOptions::default())?;
    Ok(())
}

/// The folder `upper` of a mounted sandbox becomes a tar on standard output, with whiteouts.
fn export_sandbox(arguments: &[OsString]) -> Result<()> {
    let folder = match arguments {
        [flag, folder] if flag == "-path" || flag == "--path" => PathBuf::from(folder),
        [joined] => joined
            .to_str()
            .and_then(|text| text.trim_start_matches('-').strip_prefix("path="))
            .map(PathBuf::from)
            .ok_or("usage: exportSandbox -path FOLDER")?,
        _ => return Err("usage: exportSandbox -path FOLDER".into()),
    };
    let options = DiskToTarOptions {
        sandbox: true,
        ..DiskToTarOptions::default()
    };
    folder_to_tar(&folder, stdout()?, &options)?;
    Ok(())
}

fn stdin() -> io::Result<File> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

fn stdout() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

/// Copies without writing blocks of zeros.
fn copy_sparse(input: &mut impl Read, file: &mut File) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut length = 0u64;
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match input.read(block.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(size) => filled += size,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let bytes = block.get(..filled).unwrap_or_default();
        if bytes.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(length))?;
            file.write_all(bytes)?;
        }
        length += u64::try_from(filled).map_err(io::Error::other)?;
        if filled < block.len() {
            return file.set_len(length);
        }
    }
}

/// A place for a file that is gone when the converter is.
struct Spool {
    path: PathBuf,
}

impl Spool {
    fn new() -> Self {
        let name = format!("gcs-{}.spool", std::process::id());
        Self {
            path: std::env::temp_dir().join(name),
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn zeros_become_holes() {
        let mut content = vec![0; 40 * BLOCK + 100];
        content[3 * BLOCK] = 7;
        let mut file = tempfile::tempfile().unwrap();
        copy_sparse(&mut content.as_slice(), &mut file).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), content.len() as u64);
        assert!(metadata.blocks() * 512 <= 2 * BLOCK as u64);
        let mut copy = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut copy).unwrap();
        assert!(copy == content);
    }
}
