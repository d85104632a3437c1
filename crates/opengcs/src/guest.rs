//! What runs inside the VM, and where it comes from: the distribution's kernel, and our initrd.

pub mod bzimage;
pub mod cpio;
mod elf;
pub mod initrd;
pub mod kernel;
pub mod modules;
mod package;
