//! The monitor's own log: all that the process says on stderr, in a file that does not grow for ever.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::{logs, sys};

/// A log with more bytes is put aside, in the place of the one before it.
const FULL: u64 = 1 << 20;
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Has stderr go to the log in a VM's folder from now on.
///
/// # Errors
/// The file cannot be made.
pub fn begin(folder: &Path) -> Result<()> {
    let path = logs::monitor(folder);
    let file = anew(&path).map_err(|error| Error::io("write", &path, &error))?;
    tokio::spawn(keep_small(path, file));
    Ok(())
}

fn anew(path: &Path) -> std::io::Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    sys::log_to(&file)?;
    Ok(file)
}

async fn keep_small(path: PathBuf, mut file: File) {
    loop {
        tokio::time::sleep(LOOK).await;
        let full = file.metadata().is_ok_and(|found| found.len() > FULL);
        // When the folder has gone, so has the log.
        if full
            && std::fs::rename(&path, logs::older(&path)).is_ok()
            && let Ok(new) = anew(&path)
        {
            file = new;
        }
    }
}
