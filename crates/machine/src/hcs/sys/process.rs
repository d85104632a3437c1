//! Decides how processes are told apart (a number is used again, a number and a time of birth are not), and
//! which Windows this is.

use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle};

use windows_sys::Win32::Foundation::{ERROR_INVALID_PARAMETER, FILETIME};
use windows_sys::Win32::System::SystemInformation::OSVERSIONINFOW;
use windows_sys::Win32::System::Threading::{
    GetCurrentProcessId, GetProcessTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION,
};

/// A process's number and when it was made, in units of 100 ns since 1601.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: u32,
    pub(crate) born: u64,
}

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Born(u64),
    Nobody,
    /// Somebody has the number, and we may not look.
    Unknown,
}

pub(crate) fn own() -> Identity {
    // SAFETY: it takes nothing and cannot fail.
    let id = unsafe { GetCurrentProcessId() };
    let born = match born(id) {
        Found::Born(born) => born,
        Found::Nobody | Found::Unknown => 0,
    };
    Identity { id, born }
}

pub(crate) fn born(id: u32) -> Found {
    // SAFETY: it takes numbers only.
    let handle = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, id) };
    if handle.is_null() {
        let error = std::io::Error::last_os_error().raw_os_error();
        return if error == Some(ERROR_INVALID_PARAMETER.cast_signed()) {
            Found::Nobody
        } else {
            Found::Unknown
        };
    }
    // SAFETY: the handle is open and ours alone.
    let process = unsafe { OwnedHandle::from_raw_handle(handle) };
    let mut times = [FILETIME::default(); 4];
    let [created, exited, kernel, user] = &mut times;
    // SAFETY: the handle is open, and the four places are there to be written.
    let known =
        unsafe { GetProcessTimes(process.as_raw_handle(), created, exited, kernel, user) } != 0;
    let number =
        |time: &FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
    match (known, number(&times[1])) {
        (true, 0) => Found::Born(number(&times[0])),
        // It has ended, and somebody still holds a handle to it.
        (true, _) => Found::Nobody,
        (false, _) => Found::Unknown,
    }
}

#[link(name = "ntdll")]
unsafe extern "system" {
    // The documented way to the version: GetVersionEx tells what a program's manifest wants to hear.
    fn RtlGetVersion(version: *mut OSVERSIONINFOW) -> i32;
}

/// The build of this Windows: 17763 is Windows 10 1809 and Windows Server 2019.
pub(crate) fn windows_build() -> u32 {
    let mut version = OSVERSIONINFOW {
        dwOSVersionInfoSize: u32::try_from(size_of::<OSVERSIONINFOW>()).unwrap_or(0),
        ..OSVERSIONINFOW::default()
    };
    // SAFETY: the place has the size that it says.
    unsafe { RtlGetVersion(&raw mut version) };
    version.dwBuildNumber
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_here_and_nobody_has_number_0xfffffff0() {
        let own = own();
        assert!(own.born > 0);
        assert_eq!(born(own.id), Found::Born(own.born));
        assert_eq!(born(0xffff_fff0), Found::Nobody);
        assert!(windows_build() > 0);
    }
}
