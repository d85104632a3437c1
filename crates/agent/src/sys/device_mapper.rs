//! The kernel's device mapper: a block device made of others by a table.

use std::{fs::File, io};

use rustix::ioctl::{Opcode, Updater, ioctl};

/// `struct dm_ioctl` (include/uapi/linux/dm-ioctl.h).
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    version: [u32; 3],
    /// Of header and payload together.
    data_size: u32,
    /// Where the payload begins.
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

/// `struct dm_target_spec`; its parameters follow, ended by a zero.
#[derive(Clone, Copy)]
#[repr(C)]
struct TargetSpec {
    sector_start: u64,
    length: u64,
    status: i32,
    next: u32,
    target_type: [u8; 16],
}

/// The longest text of parameters: a dm-verity target with the longest salt and digest fits.
const PARAMETERS: usize = 1024;

/// A request with room for one target.
#[derive(Clone, Copy)]
#[repr(C)]
struct Request {
    header: Header,
    target: TargetSpec,
    parameters: [u8; PARAMETERS],
}

const HEADER_SIZE: u32 = 312;
const REQUEST_SIZE: u32 = 312 + 40 + 1024;
const _: () = assert!(size_of::<Header>() == HEADER_SIZE as usize);
const _: () = assert!(size_of::<TargetSpec>() == 40);
const _: () = assert!(size_of::<Request>() == REQUEST_SIZE as usize);

/// `_IOWR(0xfd, number, struct dm_ioctl)`.
const fn opcode(number: u32) -> Opcode {
    ((3 << 30) | (HEADER_SIZE << 16) | (0xfd << 8) | number) as Opcode
}

const DEV_CREATE: Opcode = opcode(3);
const DEV_REMOVE: Opcode = opcode(4);
/// Without the suspend flag it resumes, which makes a loaded table the device's own.
const DEV_SUSPEND: Opcode = opcode(6);
const TABLE_LOAD: Opcode = opcode(9);

const READ_ONLY: u32 = 1;

/// The way to the device mapper.
pub(crate) const CONTROL: &str = "/dev/mapper/control";

/// One target that makes up a whole device.
pub(crate) struct Target<'a> {
    /// Its type, as the kernel knows it.
    pub(crate) kind: &'a str,
    /// Its length in sectors of 512 bytes.
    pub(crate) sectors: u64,
    /// Its parameters.
    pub(crate) parameters: &'a str,
}

/// Makes a device that can only be read, and gives the number N of `/dev/dm-N`.
pub(crate) fn create(name: &str, target: &Target<'_>) -> io::Result<u32> {
    let control = control()?;
    let mut request = Request::new(name)?;
    call::<DEV_CREATE>(&control, &mut request)?;
    let made = || -> io::Result<u32> {
        let mut request = Request::new(name)?;
        request.header.flags = READ_ONLY;
        request.target(target)?;
        call::<TABLE_LOAD>(&control, &mut request)?;
        let mut request = Request::new(name)?;
        call::<DEV_SUSPEND>(&control, &mut request)?;
        Ok(minor(request.header.dev))
    };
    made().inspect_err(|_| {
        let _ = remove(name);
    })
}

/// Takes a device away; it fails with `EBUSY` while the device is in use. One that is not there is fine.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    let control = control()?;
    match call::<DEV_REMOVE>(&control, &mut Request::new(name)?) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            Ok(())
        }
        other => other,
    }
}

fn control() -> io::Result<File> {
    File::options().read(true).write(true).open(CONTROL)
}

/// The minor number in the kernel's encoding of a device's number.
fn minor(dev: u64) -> u32 {
    let low = dev & 0xff;
    let high = (dev >> 12) & 0xf_ff00;
    u32::try_from(low | high).unwrap_or(u32::MAX)
}

impl Request {
    fn new(name: &str) -> io::Result<Self> {
        let mut request = Self {
            header: Header {
                version: [4, 0, 0],
                data_size: REQUEST_SIZE,
                data_start: HEADER_SIZE,
                target_count: 0,
                open_count: 0,
                flags: 0,
                event_nr: 0,
                padding: 0,
                dev: 0,
                name: [0; 128],
                uuid: [0; 129],
                data: [0; 7],
            },
            target: TargetSpec {
                sector_start: 0,
                length: 0,
                status: 0,
                next: 0,
                target_type: [0; 16],
            },
            parameters: [0; PARAMETERS],
        };
        put(&mut request.header.name, name)?;
        Ok(request)
    }

    fn target(&mut self, target: &Target<'_>) -> io::Result<()> {
        self.header.target_count = 1;
        self.target.length = target.sectors;
        put(&mut self.target.target_type, target.kind)?;
        put(&mut self.parameters, target.parameters)
    }
}

/// Puts a text into a field that ends it with a zero.
fn put(field: &mut [u8], text: &str) -> io::Result<()> {
    if text.len() >= field.len() || text.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    field
        .iter_mut()
        .zip(text.bytes())
        .for_each(|(place, byte)| *place = byte);
    Ok(())
}

fn call<const OPCODE: Opcode>(control: &File, request: &mut Request) -> io::Result<()> {
    // SAFETY: the opcode is one of the device mapper's, which take a `struct dm_ioctl` that says in
    // `data_size` how long the buffer that begins with it is: all of `Request`, as asserted above.
    let updater = unsafe { Updater::<'_, OPCODE, Request>::new(request) };
    // SAFETY: as above; the kernel writes back at most `data_size` bytes of plain numbers.
    unsafe { ioctl(control, updater) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        // DM_DEV_CREATE and DM_TABLE_LOAD of linux/dm-ioctl.h on x86-64.
        assert_eq!(DEV_CREATE, 0xc138_fd03);
        assert_eq!(TABLE_LOAD, 0xc138_fd09);
        // 253:5, and a minor number of more than a byte.
        assert_eq!(minor(0xfd05), 5);
        assert_eq!(minor(0x0010_fd05), 0x105);
    }

    #[test]
    fn texts_that_do_not_fit_are_refused() {
        assert!(Request::new(&"n".repeat(127)).is_ok());
        assert!(Request::new(&"n".repeat(128)).is_err());
        assert!(Request::new("a\0b").is_err());
        let mut request = Request::new("n").unwrap();
        let parameters = "p".repeat(PARAMETERS);
        let target = Target {
            kind: "verity",
            sectors: 8,
            parameters: &parameters,
        };
        assert!(request.target(&target).is_err());
    }
}
