//! What a name or a node says about the layers below: OCI's markers in tars, overlayfs's on disks.

use opengcs_ext4::{Device, FileType, Xattr};

/// What a whiteout's name starts with in a tar.
pub(crate) const PREFIX: &[u8] = b".wh.";
/// The name that makes the folder it is in opaque, in a tar.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// The xattr that makes a folder opaque, on a disk.
pub(crate) const OPAQUE_XATTR: &[u8] = b"trusted.overlay.opaque";
const OVERLAY_XATTRS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// What a tar entry's name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker<'a> {
    /// Nothing about layers.
    None,
    /// This name is hidden in the layers below.
    Whiteout(&'a [u8]),
    /// The folder hides everything below.
    Opaque,
    /// AUFS's own bookkeeping, without meaning here.
    Ignored,
}

/// Reads the last component of a path.
pub(crate) fn marker(name: &[u8]) -> Marker<'_> {
    match name.strip_prefix(PREFIX) {
        None | Some(b"") => Marker::None,
        Some(_) if name == OPAQUE => Marker::Opaque,
        Some(rest) if rest.starts_with(PREFIX) => Marker::Ignored,
        Some(b"." | b"..") => Marker::None,
        Some(hidden) => Marker::Whiteout(hidden),
    }
}

/// Whether a node is overlayfs's whiteout: a character device 0:0.
pub(crate) fn is_whiteout(file_type: FileType, device: Device) -> bool {
    file_type == FileType::CharDevice && device == Device { major: 0, minor: 0 }
}

/// What overlayfs keeps in a node's xattrs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OverlayState {
    /// The folder hides everything below.
    pub(crate) opaque: bool,
    /// The file is a whiteout in xattr form.
    pub(crate) whiteout: bool,
    /// The node's content or children are elsewhere in the layers below, named by this xattr.
    pub(crate) elsewhere: Option<Vec<u8>>,
}

/// Takes overlayfs's own xattrs out of `xattrs` and says what they mean.
pub(crate) fn take_overlay_xattrs(xattrs: &mut Vec<Xattr>) -> OverlayState {
    let mut state = OverlayState::default();
    xattrs.retain_mut(|xattr| {
        let Some((prefix, key)) = OVERLAY_XATTRS
            .into_iter()
            .find_map(|prefix| Some((prefix, xattr.name.strip_prefix(prefix)?)))
        else {
            return true;
        };
        // An overlay within an overlay keeps its xattrs one level deeper.
        if let Some(inner) = key.strip_prefix(b"overlay.") {
            xattr.name = [prefix, inner].concat();
            return true;
        }
        match key {
            b"opaque" => state.opaque |= xattr.value == b"y",
            b"whiteout" => state.whiteout = true,
            b"redirect" | b"metacopy" => state.elsewhere = Some(xattr.name.clone()),
            _ => {}
        }
        false
    });
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattr(name: &[u8], value: &[u8]) -> Xattr {
        Xattr {
            name: name.to_vec(),
            value: value.to_vec(),
        }
    }

    #[test]
    fn names_are_told_apart() {
        assert_eq!(marker(b".wh.a"), Marker::Whiteout(b"a"));
        assert_eq!(marker(b".wh..a"), Marker::Whiteout(b".a"));
        assert_eq!(marker(b".wh..wh..opq"), Marker::Opaque);
        assert_eq!(marker(b".wh..wh.aufs"), Marker::Ignored);
        assert_eq!(marker(b".wh..wh.plnk"), Marker::Ignored);
        assert_eq!(marker(b".wh."), Marker::None);
        assert_eq!(marker(b".wh..."), Marker::None);
        assert_eq!(marker(b"a.wh.b"), Marker::None);
    }

    #[test]
    fn overlay_xattrs_are_taken_out() {
        let mut xattrs = vec![
            xattr(b"trusted.overlay.opaque", b"y"),
            xattr(b"trusted.overlay.origin", b"\0"),
            xattr(b"trusted.overlay.overlay.opaque", b"y"),
            xattr(b"trusted.other", b"1"),
        ];
        let state = take_overlay_xattrs(&mut xattrs);
        assert!(state.opaque && !state.whiteout && state.elsewhere.is_none());
        assert_eq!(
            xattrs,
            [
                xattr(b"trusted.overlay.opaque", b"y"),
                xattr(b"trusted.other", b"1")
            ]
        );
        let mut xattrs = vec![xattr(b"trusted.overlay.opaque", b"x")];
        assert!(!take_overlay_xattrs(&mut xattrs).opaque);
    }
}
