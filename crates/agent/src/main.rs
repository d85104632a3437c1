//! The binary `gcs`: the agent under its several names.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    opengcs_agent::program::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
