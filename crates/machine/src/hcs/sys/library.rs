//! Decides how `computecore.dll` is found, and what is called in it.
//!
//! It is never linked: a program that links it does not load where Hyper-V is not enabled. Once loaded it
//! stays loaded, because its threads may be on the way to a callback of ours.

use std::ffi::{CStr, c_void};
use std::path::Path;

use windows_sys::Win32::Foundation::HMODULE;
use windows_sys::Win32::System::HostComputeSystem::{
    HCS_EVENT_CALLBACK, HCS_EVENT_OPTIONS, HCS_OPERATION, HCS_OPERATION_COMPLETION, HCS_SYSTEM,
};
use windows_sys::Win32::System::LibraryLoader::{
    GetProcAddress, LOAD_LIBRARY_SEARCH_SYSTEM32, LOAD_WITH_ALTERED_SEARCH_PATH, LoadLibraryExW,
};
use windows_sys::core::PCWSTR;

use super::wide;
use crate::error::{Error, ErrorKind, Result};
use crate::hcs::outcome::NOT_ENABLED;

type Code = i32;
type Request = unsafe extern "system" fn(HCS_SYSTEM, HCS_OPERATION, PCWSTR) -> Code;
type Address = unsafe extern "system" fn() -> isize;
type Create = unsafe extern "system" fn(
    PCWSTR,
    PCWSTR,
    HCS_OPERATION,
    *const c_void,
    *mut HCS_SYSTEM,
) -> Code;
type SetCallback = unsafe extern "system" fn(
    HCS_SYSTEM,
    HCS_EVENT_OPTIONS,
    *const c_void,
    HCS_EVENT_CALLBACK,
) -> Code;
type Access = unsafe extern "system" fn(PCWSTR, PCWSTR) -> Code;

/// Declares the functions, each with its name in the library and its type there.
macro_rules! library {
    ($($field:ident = $name:literal: $type:ty;)*) => {
        /// The functions of the library.
        #[derive(Debug)]
        pub(crate) struct Library {
            $(pub(super) $field: $type,)*
        }

        impl Library {
            fn find(module: HMODULE) -> Result<Self> {
                Ok(Self {
                    $($field: {
                        let address = address(module, $name)?;
                        // SAFETY: by Microsoft's computecore.h the function of this name has this type;
                        // both are addresses of code.
                        unsafe { std::mem::transmute::<Address, $type>(address) }
                    },)*
                })
            }
        }
    };
}

library! {
    create_operation = c"HcsCreateOperation":
        unsafe extern "system" fn(*const c_void, HCS_OPERATION_COMPLETION) -> HCS_OPERATION;
    close_operation = c"HcsCloseOperation": unsafe extern "system" fn(HCS_OPERATION);
    cancel_operation = c"HcsCancelOperation": unsafe extern "system" fn(HCS_OPERATION) -> Code;
    wait_for_operation_result = c"HcsWaitForOperationResult":
        unsafe extern "system" fn(HCS_OPERATION, u32, *mut *mut u16) -> Code;
    create_compute_system = c"HcsCreateComputeSystem": Create;
    open_compute_system = c"HcsOpenComputeSystem":
        unsafe extern "system" fn(PCWSTR, u32, *mut HCS_SYSTEM) -> Code;
    close_compute_system = c"HcsCloseComputeSystem": unsafe extern "system" fn(HCS_SYSTEM);
    start_compute_system = c"HcsStartComputeSystem": Request;
    shut_down_compute_system = c"HcsShutDownComputeSystem": Request;
    terminate_compute_system = c"HcsTerminateComputeSystem": Request;
    get_compute_system_properties = c"HcsGetComputeSystemProperties": Request;
    modify_compute_system = c"HcsModifyComputeSystem":
        unsafe extern "system" fn(HCS_SYSTEM, HCS_OPERATION, PCWSTR, *const c_void) -> Code;
    set_compute_system_callback = c"HcsSetComputeSystemCallback": SetCallback;
    enumerate_compute_systems = c"HcsEnumerateComputeSystems":
        unsafe extern "system" fn(PCWSTR, HCS_OPERATION) -> Code;
    grant_vm_access = c"HcsGrantVmAccess": Access;
    revoke_vm_access = c"HcsRevokeVmAccess": Access;
}

impl Library {
    /// Loads the library of the system, or the one at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::NotInstalled`]: it is not there, or lacks a function.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self> {
        let (name, flags) = match path {
            Some(path) => (wide::encode(path), LOAD_WITH_ALTERED_SEARCH_PATH),
            // From the system's folder alone: nobody else's library of that name is run.
            None => (
                wide::encode("computecore.dll"),
                LOAD_LIBRARY_SEARCH_SYSTEM32,
            ),
        };
        // SAFETY: the name ends with a zero, and the reserved handle is null.
        let module = unsafe { LoadLibraryExW(name.as_ptr(), std::ptr::null_mut(), flags) };
        if module.is_null() {
            let why = std::io::Error::last_os_error();
            tracing::debug!(error = %why, "computecore.dll cannot be loaded");
            return Err(Error::new(
                ErrorKind::NotInstalled,
                format!("{NOT_ENABLED} (computecore.dll cannot be loaded)"),
            ));
        }
        Self::find(module)
    }
}

fn address(module: HMODULE, name: &CStr) -> Result<Address> {
    // SAFETY: the module is loaded, and the name ends with a zero.
    let found = unsafe { GetProcAddress(module, name.as_ptr().cast()) };
    found.ok_or_else(|| {
        Error::new(
            ErrorKind::NotInstalled,
            format!(
                "this windows is too old: its computecore.dll has no {}; windows 10 1809 or windows \
                 server 2019 is needed",
                name.to_string_lossy()
            ),
        )
    })
}
