//! What runs inside the VM, and where it comes from: the distribution's kernel, our initrd, and a disk of both.

pub mod boot_disk;
pub mod bzimage;
mod cancel;
pub mod cpio;
mod elf;
pub mod initrd;
pub mod kernel;
pub mod modules;
mod package;

pub use cancel::cancel_with;
