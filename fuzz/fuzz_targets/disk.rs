//! A disk file of any format: opened, read, and written when it may be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use opengcs_vhd::testing::MemoryFile;
use opengcs_vhd::{Access, Disk, Guid, Storage};
use positioned_io::{ReadAt, WriteAt};

fuzz_target!(|bytes: &[u8]| {
    let file = MemoryFile::new();
    if file.store_at(0, bytes).is_err() {
        return;
    }
    let mut buffer = vec![0; 70_000];
    if let Ok(disk) = Disk::open(&file, Access::ReadOnly) {
        let _ = disk.summary();
        let end = disk.virtual_size().saturating_sub(4096);
        for position in [0, 1 << 20, end] {
            let _ = disk.read_at(position, &mut buffer);
        }
    }
    let session = Guid::from_bytes([7; 16]);
    if let Ok(mut disk) = Disk::open(&file, Access::ReadWrite { session }) {
        let _ = disk.write_at(3 << 20, &[1; 5000]);
        let _ = disk.finish();
    }
});
