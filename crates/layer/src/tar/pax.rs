//! PAX records: `LENGTH KEY=VALUE\n`, and what their values mean.

use std::borrow::Cow;

use opengcs_ext4::Timestamp;

/// Splits a PAX header's content into keys and values.
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

/// A record that breaks the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadRecord;

impl<'a> Records<'a> {
    pub(super) fn new(content: &'a [u8]) -> Self {
        Self { rest: content }
    }

    fn split(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.rest.iter().take(20).position(|byte| *byte == b' ')?;
        let (digits, _) = self.rest.split_at_checked(space)?;
        let length = usize::try_from(decimal(digits)?).ok()?;
        let (record, rest) = self.rest.split_at_checked(length)?;
        let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = record.split_at_checked(equals)?;
        self.rest = rest;
        (!key.is_empty()).then_some((key, value.get(1..)?))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        // Some writers fill the block up with NULs and count them.
        if self.rest.iter().all(|byte| *byte == 0) {
            return None;
        }
        let split = self.split();
        if split.is_none() {
            self.rest = &[];
        }
        Some(split.ok_or(BadRecord))
    }
}

/// Appends a record.
pub(super) fn put(content: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let payload = key.len() + value.len() + 3;
    let mut length = payload + 1;
    while length != payload + length.to_string().len() {
        length = payload + length.to_string().len();
    }
    content.extend_from_slice(length.to_string().as_bytes());
    content.push(b' ');
    content.extend_from_slice(key);
    content.push(b'=');
    content.extend_from_slice(value);
    content.push(b'\n');
}

/// Reads an unsigned decimal number.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// Reads a time: a decimal number of seconds, perhaps negative, perhaps with a
/// fraction, of which nine digits count, or as Python's tarfile writes very small
/// and very large ones: `5e-05`.
pub(super) fn time(text: &[u8]) -> Option<Timestamp> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let digits = without_exponent(digits)?;
    let (whole, fraction) = at_point(&digits);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let seconds = match whole {
        [] => 0,
        whole => i64::try_from(decimal(whole)?).ok()?,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds: u32 = 0;
    for place in 0..9 {
        let digit = fraction.get(place).map_or(0, |byte| u32::from(byte - b'0'));
        nanoseconds = nanoseconds * 10 + digit;
    }
    // Before the epoch a rest further down still rounds down.
    let below = negative && fraction.iter().skip(9).any(|byte| *byte != b'0');
    Some(if !negative {
        Timestamp {
            seconds,
            nanoseconds,
        }
    } else {
        let nanoseconds = nanoseconds + u32::from(below);
        match nanoseconds {
            0 => Timestamp {
                seconds: -seconds,
                nanoseconds: 0,
            },
            _ => Timestamp {
                seconds: (-seconds).checked_sub(1)?,
                nanoseconds: 1_000_000_000 - nanoseconds,
            },
        }
    })
}

/// What stands before and behind the decimal point.
fn at_point(digits: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let whole = parts.next().unwrap_or_default();
    (whole, parts.next().unwrap_or_default())
}

/// The same number, its decimal point where the exponent says.
fn without_exponent(digits: &[u8]) -> Option<Cow<'_, [u8]>> {
    /// No double has a larger one.
    const MOST: usize = 400;
    let mut parts = digits.splitn(2, |byte| *byte == b'e');
    let number = parts.next()?;
    let Some(exponent) = parts.next() else {
        return Some(Cow::Borrowed(digits));
    };
    let (down, exponent) = match exponent.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, exponent),
    };
    let shift = usize::try_from(decimal(exponent)?).ok()?;
    let (whole, fraction) = at_point(number);
    if shift > MOST || whole.is_empty() {
        return None;
    }
    let zeros = vec![b'0'; shift];
    let (all, point) = if down {
        ([&zeros, whole, fraction].concat(), whole.len())
    } else {
        ([whole, fraction, &zeros].concat(), whole.len() + shift)
    };
    let (whole, fraction) = all.split_at_checked(point)?;
    Some(Cow::Owned([whole, b".", fraction].concat()))
}

/// Writes a time so that [`time`] reads it back.
pub(super) fn time_text(time: Timestamp) -> String {
    let nanoseconds = time.nanoseconds.min(999_999_999);
    let (sign, whole, rest) = if time.seconds < 0 && nanoseconds > 0 {
        let whole = time.seconds + 1;
        (
            if whole == 0 { "-" } else { "" },
            whole,
            1_000_000_000 - nanoseconds,
        )
    } else {
        ("", time.seconds, nanoseconds)
    };
    if rest == 0 {
        return whole.to_string();
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
}

/// Undoes the escapes of an xattr name within a `SCHILY.xattr.` key: `%3D` for `=`, `%25` for `%`.
pub(super) fn unescape_name(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match rest {
            [b'%', b'3', b'D' | b'd', tail @ ..] => (b'=', tail),
            [b'%', b'2', b'5', tail @ ..] => (b'%', tail),
            _ => (*first, tail),
        };
        name.push(byte);
        rest = tail;
    }
    name
}

/// Makes an xattr name fit for a `SCHILY.xattr.` key.
pub(super) fn escape_name(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            other => key.push(*other),
        }
    }
    key
}

/// Undoes libarchive's URL encoding of xattr names.
pub(super) fn url_decode(key: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(key.len());
    let mut bytes = key.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' {
            let mut hex = || char::from(*bytes.next()?).to_digit(16);
            let (high, low) = (hex()?, hex()?);
            name.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            name.push(*byte);
        }
    }
    Some(name)
}

/// Decodes base64, with or without padding at its end.
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = text.get(..text.len() - padding)?;
    if padding > 2 || digits.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut value: u32 = 0;
        for place in 0..4 {
            let digit = match group.get(place) {
                None => 0,
                Some(byte @ b'A'..=b'Z') => byte - b'A',
                Some(byte @ b'a'..=b'z') => byte - b'a' + 26,
                Some(byte @ b'0'..=b'9') => byte - b'0' + 52,
                Some(b'+') => 62,
                Some(b'/') => 63,
                Some(_) => return None,
            };
            value = value << 6 | u32::from(digit);
        }
        let [_, bytes @ ..] = value.to_be_bytes();
        out.extend_from_slice(bytes.get(..group.len() - 1)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanoseconds: u32) -> Timestamp {
        Timestamp {
            seconds,
            nanoseconds,
        }
    }

    #[test]
    fn times_are_read() {
        assert_eq!(time(b"1.5"), Some(at(1, 500_000_000)));
        assert_eq!(time(b"1"), Some(at(1, 0)));
        assert_eq!(time(b"1."), Some(at(1, 0)));
        assert_eq!(time(b".25"), Some(at(0, 250_000_000)));
        assert_eq!(time(b"-1.5"), Some(at(-2, 500_000_000)));
        assert_eq!(time(b"-0.000000001"), Some(at(-1, 999_999_999)));
        assert_eq!(time(b"-7"), Some(at(-7, 0)));
        assert_eq!(time(b"1.1234567899"), Some(at(1, 123_456_789)));
        assert_eq!(time(b"5e-05"), Some(at(0, 50_000)));
        assert_eq!(time(b"-1e-09"), Some(at(-1, 999_999_999)));
        assert_eq!(time(b"-1.5e-320"), Some(at(-1, 999_999_999)));
        assert_eq!(time(b"1.25e+1"), Some(at(12, 500_000_000)));
        assert_eq!(time(b"1e+16"), Some(at(10_000_000_000_000_000, 0)));
        for bad in [
            &b""[..],
            b".",
            b"-",
            b"1x",
            b"1.2.3",
            b"0x10",
            b"99999999999999999999",
            b"1e",
            b"1e-",
            b"e5",
            b"1e5.5",
            b"1e1e1",
            b"1.2.3e1",
            b"1e20",
            b"1e99999999999999999999",
            b"1e4000000000",
            b"inf",
            b"nan",
        ] {
            assert_eq!(time(bad), None);
        }
    }

    #[test]
    fn times_round_trip() {
        for seconds in [-2_147_483_648, -2, -1, 0, 1, 4_294_967_296] {
            for nanoseconds in [0, 1, 100_000_000, 999_999_999] {
                let there = at(seconds, nanoseconds);
                assert_eq!(time(time_text(there).as_bytes()), Some(there));
            }
        }
    }

    #[test]
    fn records_round_trip_at_length_steps() {
        for length in [0, 1, 85, 86, 87, 88, 89, 90, 985, 986, 987, 988, 9_983] {
            let value = vec![b'\n'; length];
            let mut content = Vec::new();
            put(&mut content, b"user.a", &value);
            put(&mut content, b"b", b"=");
            let records: Vec<_> = Records::new(&content).collect();
            assert_eq!(
                records,
                [Ok((&b"user.a"[..], &value[..])), Ok((&b"b"[..], &b"="[..]))]
            );
        }
    }

    #[test]
    fn broken_records_are_told() {
        for bad in [
            &b"x"[..],
            b"5 a=b",
            b"99 a=b\n",
            b"6 a=b\n\n",
            b"6 abb\n",
            b"0 a=b\n",
            b"5 =b\n",
            b"99999999999999999999999 a=b\n",
        ] {
            assert!(Records::new(bad).any(|record| record.is_err()), "{bad:?}");
        }
        assert_eq!(Records::new(b"6 a=b\n\0\0").count(), 1);
    }

    #[test]
    fn base64_is_decoded() {
        assert_eq!(base64(b"").unwrap(), b"");
        assert_eq!(base64(b"TQ==").unwrap(), b"M");
        assert_eq!(base64(b"TWE").unwrap(), b"Ma");
        assert_eq!(base64(b"TWFu").unwrap(), b"Man");
        assert_eq!(base64(b"T"), None);
        assert_eq!(base64(b"TWF*"), None);
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(unescape_name(&escape_name(b"user.a=b%3D")), b"user.a=b%3D");
        assert_eq!(url_decode(b"user.a%20b").unwrap(), b"user.a b");
        assert_eq!(url_decode(b"user.%2"), None);
    }
}
