//! Access control lists in text form (`SCHILY.acl.access`), turned into the bytes of Linux's xattr and back.

/// A list as Linux takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl {
    /// The value of `system.posix_acl_access` or `system.posix_acl_default`.
    pub(super) value: Vec<u8>,
    /// Whether it says no more than a mode does.
    pub(super) minimal: bool,
}

const VERSION: u32 = 2;
const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;
/// The ID of entries that have none.
const NO_ID: u32 = u32::MAX;

/// Reads a list; `None` when it breaks the form, or names someone whose number it does not tell.
///
/// Entries are `TAG:WHO:rwx`, separated by commas or line feeds. star adds the
/// number of a named one in a fourth field.
pub(super) fn parse(text: &[u8]) -> Option<Acl> {
    let mut entries = Vec::new();
    for entry in text.split(|byte| matches!(byte, b',' | b'\n')) {
        let entry = entry
            .split(|byte| *byte == b'#')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        if !entry.is_empty() {
            entries.push(parse_entry(entry)?);
        }
    }
    entries.sort_unstable();
    let has = |tag| entries.iter().filter(|entry| entry.0 == tag).count();
    let twice = entries
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if (a.0, a.1) == (b.0, b.1)));
    let whole = [USER_OBJ, GROUP_OBJ, OTHER]
        .iter()
        .all(|tag| has(*tag) == 1);
    let named = has(USER) + has(GROUP) > 0;
    let masked = has(MASK) > 0;
    if twice || !whole || (named && !masked) {
        return None;
    }
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    Some(Acl {
        value,
        minimal: !masked,
    })
}

/// The text of a list, with numbers for names; `None` for bytes that are not a whole list.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let entries = value.strip_prefix(&VERSION.to_le_bytes())?;
    let (entries, &[]) = entries.as_chunks::<8>() else {
        return None;
    };
    let mut text = String::new();
    for &[tag, tag_high, permissions, high, a, b, c, d] in entries {
        let tag = match u16::from_le_bytes([tag, tag_high]) {
            USER_OBJ | USER => "user",
            GROUP_OBJ | GROUP => "group",
            MASK => "mask",
            OTHER => "other",
            _ => return None,
        };
        if permissions > 7 || high != 0 {
            return None;
        }
        let who = match u32::from_le_bytes([a, b, c, d]) {
            NO_ID => String::new(),
            id => id.to_string(),
        };
        let may = |bit, letter| if permissions & bit == 0 { '-' } else { letter };
        let (read, write, execute) = (may(4, 'r'), may(2, 'w'), may(1, 'x'));
        let comma = if text.is_empty() { "" } else { "," };
        text += &format!("{comma}{tag}:{who}:{read}{write}{execute}");
    }
    // What reads as another list, or as none, would tell a lie.
    (parse(text.as_bytes())?.value == value).then_some(text)
}

fn parse_entry(entry: &[u8]) -> Option<(u16, u32, u16)> {
    let mut fields = entry.split(|byte| *byte == b':');
    let tag = fields.next()?;
    let who = fields.next()?;
    let permissions = parse_permissions(fields.next()?)?;
    let number = fields.next();
    if fields.next().is_some() {
        return None;
    }
    let (object, named) = match tag {
        b"user" | b"u" => (USER_OBJ, Some(USER)),
        b"group" | b"g" => (GROUP_OBJ, Some(GROUP)),
        b"mask" | b"m" => (MASK, None),
        b"other" | b"o" => (OTHER, None),
        _ => return None,
    };
    if who.is_empty() {
        return Some((object, NO_ID, permissions));
    }
    let id = match (number.and_then(id), who) {
        (Some(id), _) => id,
        (None, b"root") => 0,
        (None, who) => id(who)?,
    };
    Some((named?, id, permissions))
}

fn id(text: &[u8]) -> Option<u32> {
    u32::try_from(super::pax::decimal(text)?)
        .ok()
        .filter(|id| *id != NO_ID)
}

fn parse_permissions(text: &[u8]) -> Option<u16> {
    text.iter().try_fold(0, |permissions, letter| {
        Some(
            permissions
                | match letter {
                    b'r' => 4,
                    b'w' => 2,
                    b'x' => 1,
                    b'-' => 0,
                    _ => return None,
                },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(entries: &[(u16, u16, u32)]) -> Option<Acl> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        Some(Acl {
            value,
            minimal: false,
        })
    }

    #[test]
    fn lists_become_what_linux_takes() {
        let list = b"user::rw-,user:1000:r--,group::r-x\nmask::rwx,other::---\n";
        assert_eq!(
            parse(list),
            bytes(&[
                (1, 6, NO_ID),
                (2, 4, 1000),
                (4, 5, NO_ID),
                (16, 7, NO_ID),
                (32, 0, NO_ID)
            ])
        );
        let list = b"u::rw-,g::r--,g:staff:rw-:50,g:root:r--,m::rw-,o::r-- # all";
        assert_eq!(
            parse(list),
            bytes(&[
                (1, 6, NO_ID),
                (4, 4, NO_ID),
                (8, 4, 0),
                (8, 6, 50),
                (16, 6, NO_ID),
                (32, 4, NO_ID)
            ])
        );
        assert!(parse(b"user::rw-,group::r--,other::r--").unwrap().minimal);
    }

    #[test]
    fn lists_become_the_text_that_they_came_from() {
        for list in [
            "user::rw-,user:0:---,user:1000:r--,group::r-x,group:4294967294:rwx,mask::rwx,other::--x",
            "user::rw-,group::r--,other::r--",
        ] {
            let value = parse(list.as_bytes()).unwrap().value;
            assert_eq!(text(&value).unwrap(), list);
            assert_eq!(text(&value[..value.len() - 1]), None);
            assert_eq!(text(&value[..value.len() - 8]), None);
            for at in [0, 4, 6, 7] {
                let mut other = value.clone();
                other[at] ^= 0x48;
                assert_eq!(text(&other), None, "byte {at}");
            }
        }
        assert_eq!(text(b""), None);
    }

    #[test]
    fn what_linux_would_not_take_is_refused() {
        for bad in [
            &b""[..],
            b"user::rw-",
            b"user::rw-,group::r--,other::r--,user:7:r--",
            b"user::rw-,group::r--,other::r--,mask::r--,user:joe:r--",
            b"user::rw-,user::rw-,group::r--,other::r--",
            b"user::rwz,group::r--,other::r--",
            b"user::rw-,group::r--,other::r--,mask:3:r--",
            b"user::rw-,group::r--,other::r--,mask::r--,user:4294967295:r--",
            b"user::rw-,group::r--,other::r--:::",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
