//! What Windows has instead: folders that one user alone may enter, locks by open folders, free space.
#![allow(unsafe_code, reason = "they are interfaces of C")]

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::ffi::OsStrExt as _;
use std::os::windows::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::windows::io::{FromRawHandle as _, OwnedHandle};
use std::path::Path;

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, HANDLE, LocalFree,
};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
};
use windows_sys::Win32::Security::{
    GetTokenInformation, SECURITY_ATTRIBUTES, TOKEN_QUERY, TOKEN_USER, TokenUser,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateDirectoryW, DELETE, FILE_ATTRIBUTE_REPARSE_POINT, FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT, FILE_LIST_DIRECTORY, FILE_SHARE_READ, FILE_SHARE_WRITE,
    GetDiskFreeSpaceExW,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use super::Holder;

/// Memory of `LocalAlloc` that was handed over to us.
struct Local(*mut c_void);

impl Drop for Local {
    fn drop(&mut self) {
        // SAFETY: it was allocated for us, and nobody uses it any more.
        unsafe { LocalFree(self.0) };
    }
}

/// Makes a folder that nobody may enter but this user and the system, whose services run machines. What
/// is made in it is the same.
pub(crate) fn make_private_folder(path: &Path) -> io::Result<()> {
    let rights = format!("D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;{})", user()?);
    let rights = wide(Path::new(&rights));
    let mut descriptor = std::ptr::null_mut();
    // SAFETY: the text ends with a zero, and there is a place for the answer; no length is asked for.
    let done = unsafe {
        ConvertStringSecurityDescriptorToSecurityDescriptorW(
            rights.as_ptr(),
            SDDL_REVISION_1,
            &raw mut descriptor,
            std::ptr::null_mut(),
        )
    };
    checked(done)?;
    let descriptor = Local(descriptor);
    let attributes = SECURITY_ATTRIBUTES {
        nLength: u32::try_from(size_of::<SECURITY_ATTRIBUTES>()).unwrap_or(0),
        lpSecurityDescriptor: descriptor.0,
        bInheritHandle: 0,
    };
    let path = wide(&std::path::absolute(path)?);
    // SAFETY: the text ends with a zero, and the descriptor outlives the call.
    checked(unsafe { CreateDirectoryW(path.as_ptr(), &raw const attributes) })
}

/// The user whose process this is, as `S-1-…`.
fn user() -> io::Result<String> {
    let mut token: HANDLE = std::ptr::null_mut();
    // SAFETY: a process may look at itself, and there is a place for the answer.
    checked(unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) })?;
    // SAFETY: it is open, and nobody else's.
    let token_owned = unsafe { OwnedHandle::from_raw_handle(token) };
    // Room for the structure and the longest identifier behind it, aligned as the structure is.
    let mut answer = [0_u64; 32];
    let mut length = 0;
    // SAFETY: the handle is open, and the place has the length that is said.
    let done = unsafe {
        GetTokenInformation(
            token,
            TokenUser,
            answer.as_mut_ptr().cast(),
            u32::try_from(size_of_val(&answer)).unwrap_or(0),
            &raw mut length,
        )
    };
    checked(done)?;
    drop(token_owned);
    // SAFETY: it was filled with one of these, and it is aligned for it.
    let sid = unsafe { (*answer.as_ptr().cast::<TOKEN_USER>()).User.Sid };
    let mut text = std::ptr::null_mut();
    // SAFETY: the identifier lies in `answer`, and there is a place for the answer.
    checked(unsafe { ConvertSidToStringSidW(sid, &raw mut text) })?;
    let text = Local(text.cast());
    let mut units = Vec::new();
    let mut next = text.0.cast::<u16>();
    // SAFETY: the text ends with a zero, beyond which nothing is read.
    while unsafe { *next } != 0 {
        // SAFETY: as above; the zero comes later.
        unsafe {
            units.push(*next);
            next = next.add(1);
        }
    }
    String::from_utf16(&units).map_err(io::Error::other)
}

/// Locks a folder for this process, until the file is closed or the process has ended; `None` when
/// another holds it.
///
/// The open folder itself is the lock: nobody lets it be removed who has it open, and a sweeper asks for
/// the right to remove it. An owner asks for less, so that others can look into its folder.
pub(crate) fn lock_folder(path: &Path, holder: Holder) -> io::Result<Option<File>> {
    let access = match holder {
        Holder::Owner => FILE_LIST_DIRECTORY,
        Holder::Sweeper => FILE_LIST_DIRECTORY | DELETE,
    };
    let opened = OpenOptions::new()
        .access_mode(access)
        .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
        .open(path);
    match opened {
        Ok(folder) => Ok(Some(folder)),
        Err(error) => match error.raw_os_error().map(i32::cast_unsigned) {
            // Denied is what a folder is that is about to go.
            Some(ERROR_SHARING_VIOLATION | ERROR_ACCESS_DENIED) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Whether an open folder is still the one at `path`: nobody can rename one that we have locked. A link in
/// its place was opened itself, and is none.
pub(crate) fn is_at(folder: &File, _path: &Path) -> bool {
    folder.metadata().is_ok_and(|found| is_folder(&found))
}

/// Whether `path` is a folder, and no link to one. Whose it is is left to the rights on it: whom they let
/// remove it may.
pub(crate) fn is_own_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| is_folder(&found))
}

fn is_folder(found: &std::fs::Metadata) -> bool {
    found.is_dir() && found.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT == 0
}

/// Bytes that a user may still write to the file system of `folder`.
pub(crate) fn free_space(folder: &Path) -> io::Result<u64> {
    let folder = wide(&std::path::absolute(folder)?);
    let mut free = 0;
    // SAFETY: the text ends with a zero, and there is a place for the one answer that is asked for.
    let done = unsafe {
        GetDiskFreeSpaceExW(
            folder.as_ptr(),
            &raw mut free,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    checked(done)?;
    Ok(free)
}

fn wide(text: &Path) -> Vec<u16> {
    text.as_os_str().encode_wide().chain([0]).collect()
}

fn checked(done: i32) -> io::Result<()> {
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use windows_sys::Win32::Security::Authorization::ConvertSecurityDescriptorToStringSecurityDescriptorW;
    use windows_sys::Win32::Security::{DACL_SECURITY_INFORMATION, GetFileSecurityW};

    /// Who has rights on a file or folder, as Windows writes it.
    fn rights(path: &Path) -> String {
        let path = wide(path);
        let mut descriptor = [0_u64; 512];
        let (mut length, mut units) = (0, 0);
        let mut text = std::ptr::null_mut();
        let descriptor_at = descriptor.as_mut_ptr().cast::<c_void>();
        // SAFETY: the text ends with a zero, and the place has the length that is said.
        checked(unsafe {
            GetFileSecurityW(
                path.as_ptr(),
                DACL_SECURITY_INFORMATION,
                descriptor_at,
                4096,
                &raw mut length,
            )
        })
        .unwrap();
        // SAFETY: the descriptor was filled, and there are places for the answers.
        checked(unsafe {
            ConvertSecurityDescriptorToStringSecurityDescriptorW(
                descriptor_at,
                SDDL_REVISION_1,
                DACL_SECURITY_INFORMATION,
                &raw mut text,
                &raw mut units,
            )
        })
        .unwrap();
        let text = Local(text.cast());
        let length = usize::try_from(units).unwrap();
        // SAFETY: so many units were written there.
        let units = unsafe { std::slice::from_raw_parts(text.0.cast::<u16>(), length) };
        String::from_utf16(units)
            .unwrap()
            .trim_end_matches('\0')
            .to_owned()
    }

    #[test]
    fn a_private_folder_lets_in_its_user_and_the_system_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("private");
        make_private_folder(&path).unwrap();
        let error = make_private_folder(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        std::fs::write(path.join("file"), "x").unwrap();
        let rights = rights(&path);
        let mut who: Vec<_> = rights
            .split(['(', ')'])
            .filter_map(|entry| entry.strip_prefix("A;")?.rsplit(';').next())
            .collect();
        who.sort_unstable();
        who.dedup();
        println!("rights: {rights}");
        assert!(who.contains(&"SY"), "{rights}");
        assert!(who.len() == 2 && !who.contains(&"WD"), "{rights}");
    }

    #[test]
    fn free_space_is_some() {
        assert!(free_space(&std::env::temp_dir()).unwrap() > 0);
        assert!(free_space(Path::new(r"C:\none\at all")).is_err());
    }
}
