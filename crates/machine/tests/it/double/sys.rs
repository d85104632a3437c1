//! The three functions of the double that are for tests.
#![allow(unsafe_code, reason = "libraries are loaded by an interface of C")]

use std::ffi::CStr;
use std::os::windows::ffi::OsStrExt as _;
use std::path::Path;

use windows_sys::Win32::Foundation::{HMODULE, LocalFree};
use windows_sys::Win32::System::LibraryLoader::{GetProcAddress, LoadLibraryW};

pub(super) struct Library {
    script: unsafe extern "system" fn(*const u16),
    report: unsafe extern "system" fn() -> *mut u16,
    exit: unsafe extern "system" fn(*const u16),
}

fn encode(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

fn address(module: HMODULE, name: &CStr) -> unsafe extern "system" fn() -> isize {
    // SAFETY: the module is loaded, and the name ends with a zero.
    unsafe { GetProcAddress(module, name.as_ptr().cast()) }.unwrap()
}

impl Library {
    pub(super) fn load(path: &Path) -> Self {
        let name: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
        // SAFETY: the name ends with a zero.
        let module = unsafe { LoadLibraryW(name.as_ptr()) };
        assert!(!module.is_null(), "{}", std::io::Error::last_os_error());
        type Any = unsafe extern "system" fn() -> isize;
        type Take = unsafe extern "system" fn(*const u16);
        type Give = unsafe extern "system" fn() -> *mut u16;
        // SAFETY: the double's functions have these types.
        unsafe {
            Self {
                script: std::mem::transmute::<Any, Take>(address(module, c"DoubleScript")),
                report: std::mem::transmute::<Any, Give>(address(module, c"DoubleReport")),
                exit: std::mem::transmute::<Any, Take>(address(module, c"DoubleExit")),
            }
        }
    }

    pub(super) fn script(&self, script: &str) {
        // SAFETY: the text ends with a zero.
        unsafe { (self.script)(encode(script).as_ptr()) };
    }

    pub(super) fn exit(&self, document: &str) {
        // SAFETY: the text ends with a zero.
        unsafe { (self.exit)(encode(document).as_ptr()) };
    }

    pub(super) fn report(&self) -> String {
        // SAFETY: the text ends with a zero and is ours to free.
        unsafe {
            let report = (self.report)();
            let mut length = 0;
            while *report.add(length) != 0 {
                length += 1;
            }
            let text = String::from_utf16(std::slice::from_raw_parts(report, length)).unwrap();
            LocalFree(report.cast());
            text
        }
    }
}
