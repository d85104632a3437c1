//! What a container changed, as a layer of its own: `export_sandbox FOLDER CHANGES.tar`.
//!
//! FOLDER has a `sandbox.vhdx` that no VM uses any more. Files that were deleted are `.wh.` entries in the
//! tar, as OCI layers have them. (While a VM uses it, `UtilityVm::vhd_to_tar` asks that VM.)

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::io;
use std::path::Path;

use opengcs::layer::{Existing, NewFile};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, tar] = arguments.as_slice() else {
        return Err("usage: export_sandbox FOLDER CHANGES.tar".into());
    };

    // A folder with a layer.vhd is a layer, one with a sandbox.vhdx what is written above layers.
    let found = opengcs::layer_vhd_details(folder)?;
    if !found.is_sandbox {
        return Err(format!("{folder} has a layer and no sandbox").into());
    }

    // The tar appears when it is whole.
    let mut changes = opengcs::vhd_to_tar(&found.path, true, Some(found.size))?;
    let file = NewFile::create(Path::new(tar), Existing::Keep)?;
    let size = io::copy(&mut changes, &mut file.file())?;
    file.publish()?;
    println!("{tar}: {size} bytes");
    Ok(())
}
