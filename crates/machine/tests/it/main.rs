//! Tests of real machines. They need QEMU, and a kernel that `cargo xtask test` provides through
//! `OPENGCS_TEST_KERNEL` (a bzImage) and `OPENGCS_TEST_MODULES` (its module folder).
#![cfg(target_os = "linux")]

mod guest;
mod lifecycle;
mod vsock;
