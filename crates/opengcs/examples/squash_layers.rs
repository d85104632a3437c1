//! A chain of layers becomes one image: `squash_layers ALL.vhd BASE NEXT…`, the lowest layer first.
//!
//! Layers are disk files, layer folders or tars.

#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::error::Error;
use std::path::Path;

use opengcs::layer::{SquashOptions, squash};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [all, layers @ ..] = arguments.as_slice() else {
        return Err("usage: squash_layers ALL.vhd BASE NEXT…".into());
    };
    // What a later layer hides of an earlier one is neither read nor written.
    let squashed = squash(layers, Path::new(all), &SquashOptions::default())?;
    println!(
        "{all}: {} bytes, {} entries",
        squashed.size, squashed.entries
    );
    Ok(())
}
