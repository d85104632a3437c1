//! Disk files: fixed VHD, VHDX and raw.
