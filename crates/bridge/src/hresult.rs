//! The result codes that responses carry.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A Windows result code. Values that have no name survive unchanged.
///
/// On the wire it is a signed 32-bit number; it is shown in hexadecimal.
///
/// ```
/// use opengcs_bridge::HResult;
/// assert_eq!(HResult::TIMEOUT.to_string(), "0xc0370109 (operation timed out)");
/// assert_eq!(HResult(0x8000_1234).to_string(), "0x80001234");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HResult(pub u32);

macro_rules! hresults {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl HResult {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// What the code means, if it is one of the protocol's.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

hresults! {
    /// Success.
    OK = 0, "success";
    /// The agent does not do this.
    NOT_IMPLEMENTED = 0x8000_4001, "not implemented";
    /// A failure that has no code of its own.
    FAIL = 0x8000_4005, "failure";
    /// A value in the request is not allowed.
    INVALID_ARGUMENT = 0x8007_0057, "invalid argument";
    /// The process or element does not exist.
    NOT_FOUND = 0x8007_0490, "not found";
    /// The system is in a state that does not allow this.
    INVALID_STATE = 0x8037_0105, "invalid state";
    /// The time limit of the request has passed.
    TIMEOUT = 0xC037_0109, "operation timed out";
    /// The message type is unknown.
    UNKNOWN_MESSAGE = 0xC037_010B, "unknown message";
    /// The two ends have no protocol version in common.
    UNSUPPORTED_PROTOCOL_VERSION = 0xC037_010C, "unsupported protocol version";
    /// The body is not the JSON that its type asks for.
    INVALID_JSON = 0xC037_010D, "invalid JSON";
    /// There is no such container.
    SYSTEM_NOT_FOUND = 0xC037_010E, "system not found";
    /// There is such a container already.
    SYSTEM_ALREADY_EXISTS = 0xC037_010F, "system already exists";
    /// The container has stopped already.
    SYSTEM_ALREADY_STOPPED = 0xC037_0110, "system already stopped";
}

impl HResult {
    /// Whether the code is a success code (its top bit is clear).
    #[must_use]
    pub fn is_success(self) -> bool {
        self.0.cast_signed() >= 0
    }
}

impl fmt::Display for HResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)?;
        match self.name() {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

impl Serialize for HResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(self.0.cast_signed())
    }
}

impl<'de> Deserialize<'de> for HResult {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wide = i64::deserialize(deserializer)?;
        if let Ok(signed) = i32::try_from(wide) {
            return Ok(Self(signed.cast_unsigned()));
        }
        u32::try_from(wide)
            .map(Self)
            .map_err(|_| de::Error::custom("a result code must fit in 32 bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form_is_signed() {
        assert_eq!(
            serde_json::to_string(&HResult::NOT_IMPLEMENTED).unwrap(),
            "-2147467263"
        );
        for text in ["-1070137079", "3224830217"] {
            assert_eq!(
                serde_json::from_str::<HResult>(text).unwrap(),
                HResult::TIMEOUT
            );
        }
        assert!(serde_json::from_str::<HResult>("4294967296").is_err());
        assert!(HResult::OK.is_success() && HResult(1).is_success());
        assert!(!HResult::FAIL.is_success());
    }
}
