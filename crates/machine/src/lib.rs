//! A virtual machine as hardware: QEMU, its disks and its vsock device.
