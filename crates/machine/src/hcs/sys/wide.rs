//! Decides how texts go to Windows and come back: UTF-16, ended by a zero.

use std::ffi::OsStr;
use std::os::windows::ffi::OsStrExt as _;

use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::core::PCWSTR;

/// Units of a foreign text that are looked at; more is cut off.
const LONGEST: usize = 1 << 20;

/// A text with the zero behind it. A zero inside would cut it short: no text of ours has one.
pub(crate) fn encode(text: impl AsRef<OsStr>) -> Vec<u16> {
    let units = text.as_ref().encode_wide().take_while(|unit| *unit != 0);
    units.chain([0]).collect()
}

/// Reads a foreign text; null is none.
///
/// # Safety
/// `text` is null or points at units that end with a zero.
pub(crate) unsafe fn decode(text: PCWSTR) -> Option<String> {
    if text.is_null() {
        return None;
    }
    let mut units = Vec::new();
    while units.len() < LONGEST {
        // SAFETY: no unit before this one was the zero, so this one belongs to the text.
        let unit = unsafe { *text.add(units.len()) };
        if unit == 0 {
            break;
        }
        units.push(unit);
    }
    Some(String::from_utf16_lossy(&units))
}

/// Reads a foreign text that was handed over, and gives its memory back.
///
/// # Safety
/// As for [`decode`]; and it was allocated by `LocalAlloc` and is nobody else's.
pub(crate) unsafe fn take(text: *mut u16) -> Option<String> {
    // SAFETY: as the caller promises.
    let read = unsafe { decode(text) };
    if !text.is_null() {
        // SAFETY: as the caller promises; it is not used any more.
        unsafe { LocalFree(text.cast()) };
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back_and_ends_at_its_zero() {
        for text in ["", "C:\\a b", "ünïcode \u{1F427}", &"x".repeat(70_000)] {
            let units = encode(text);
            assert_eq!(units.iter().filter(|unit| **unit == 0).count(), 1);
            // SAFETY: it ends with a zero.
            assert_eq!(unsafe { decode(units.as_ptr()) }.as_deref(), Some(text));
        }
        // SAFETY: null is none.
        assert_eq!(unsafe { decode(std::ptr::null()) }, None);
    }

    #[test]
    fn half_a_character_is_replaced() {
        let units = [0xD800, u16::from(b'a'), 0];
        // SAFETY: it ends with a zero.
        assert_eq!(unsafe { decode(units.as_ptr()) }.unwrap(), "\u{FFFD}a");
    }
}
