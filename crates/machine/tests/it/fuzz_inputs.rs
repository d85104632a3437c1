//! The inputs that are kept for fuzzing, as ordinary tests.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::print_stderr,
    reason = "these files are the fuzz targets' too"
)]

#[path = "../../../../fuzz/entries/inputs.rs"]
mod inputs;
#[path = "../../../../fuzz/entries/vsock.rs"]
mod vsock;

#[test]
fn any_driver_is_served_or_ignored() {
    inputs::each("vsock", 5, vsock::run);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn any_program_keeps_the_device_within_its_bounds(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2048)
    ) {
        vsock::run(&bytes);
    }
}
