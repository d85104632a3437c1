//! Turns the schema into code, without `protoc`.

use std::error::Error;

const SCHEMA: &str = "opengcs/monitor/v1/monitor.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile([SCHEMA], ["proto"])?;
    tonic_prost_build::configure()
        // Output of processes is passed on, and not copied.
        .bytes(".")
        .compile_fds(files)?;
    Ok(())
}
