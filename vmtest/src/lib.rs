//! Tests that boot real utility VMs.
