//! A tar is looked through before it is converted, and the disk verified by its receipt:
//! `plan_and_verify LAYER.tar DISK.vhd RECEIPT.json`.
//!
//! No VM, no root. The plan runs the conversion itself and forgets what it writes, so the two agree.

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::fs::File;
use std::path::Path;

use opengcs::layer::{
    Control, Existing, NewFile, Receipt, TarToDiskOptions, plan_tar, tar_to_disk, verify_image,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tar, disk, receipt] = arguments.as_slice() else {
        return Err("usage: plan_and_verify LAYER.tar DISK.vhd RECEIPT.json".into());
    };
    let options = TarToDiskOptions {
        digests: true,
        ..TarToDiskOptions::default()
    };

    let plan = plan_tar(File::open(tar)?, &options)?;
    for problem in plan.problems.iter() {
        println!("{problem}; {}", problem.kind.done());
    }
    if let Some(refusal) = plan.refusal {
        return Err(refusal.into());
    }

    // The receipt's file is begun first: what is wrong with its place shows before the work is done.
    let file = NewFile::create(Path::new(receipt), Existing::Replace)?;
    let converted = tar_to_disk(File::open(tar)?, Path::new(disk), &options)?;
    Receipt::new(&converted, &options)?.publish(file)?;
    let planned = plan.image.map(|image| image.size);
    println!("{disk}: {} bytes, planned: {planned:?}", converted.size);

    // Later, somewhere else.
    let receipt = Receipt::read(Path::new(receipt))?;
    let differences = verify_image(Path::new(disk), &receipt, &Control::new())?;
    for difference in &differences {
        println!("{disk}: {difference}");
    }
    println!("{disk}: {} differences", differences.len());
    Ok(())
}
