//! Directory hashes (`fs/ext4/hash.c`): legacy, half MD4 and TEA, of signed or unsigned characters.

/// `hash_version` codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HashVersion(pub(crate) u8);

#[allow(dead_code, reason = "the list is the specification's, whole")]
impl HashVersion {
    /// The first hash, signed characters.
    pub(crate) const LEGACY: Self = Self(0);
    /// Half MD4, signed characters.
    pub(crate) const HALF_MD4: Self = Self(1);
    /// TEA, signed characters.
    pub(crate) const TEA: Self = Self(2);
    /// The first hash, unsigned characters.
    pub(crate) const LEGACY_UNSIGNED: Self = Self(3);
    /// Half MD4, unsigned characters.
    pub(crate) const HALF_MD4_UNSIGNED: Self = Self(4);
    /// TEA, unsigned characters.
    pub(crate) const TEA_UNSIGNED: Self = Self(5);
    /// `SipHash`, of encrypted case-insensitive directories.
    pub(crate) const SIPHASH: Self = Self(6);
}

/// A name's place in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameHash {
    /// What the tree is sorted by; bit 0 is always clear.
    pub(crate) major: u32,
    /// Tells names apart when they are read in hash order.
    pub(crate) minor: u32,
}

/// Hashes a name; `None` for a version that cannot be computed here.
pub(crate) fn hash(version: HashVersion, seed: [u32; 4], name: &[u8]) -> Option<NameHash> {
    let signed = version.0 < HashVersion::LEGACY_UNSIGNED.0;
    let mut state = if seed == [0; 4] {
        [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476]
    } else {
        seed
    };
    let (major, minor) = match version {
        HashVersion::LEGACY | HashVersion::LEGACY_UNSIGNED => (legacy(name, signed), 0),
        HashVersion::HALF_MD4 | HashVersion::HALF_MD4_UNSIGNED => {
            let mut rest = name;
            while !rest.is_empty() {
                half_md4(&mut state, words(rest, signed));
                rest = rest.get(32..).unwrap_or_default();
            }
            let [_, b, c, _] = state;
            (b, c)
        }
        HashVersion::TEA | HashVersion::TEA_UNSIGNED => {
            let mut rest = name;
            while !rest.is_empty() {
                tea(&mut state, words(rest, signed));
                rest = rest.get(16..).unwrap_or_default();
            }
            let [a, b, _, _] = state;
            (a, b)
        }
        _ => return None,
    };
    let major = match major & !1 {
        // The end of a directory in the kernel's 32-bit positions.
        0xFFFF_FFFE => 0xFFFF_FFFC,
        other => other,
    };
    Some(NameHash { major, minor })
}

fn character(c: u8, signed: bool) -> u32 {
    if signed {
        i32::from(c.cast_signed()).cast_unsigned()
    } else {
        u32::from(c)
    }
}

/// The first `N` words of a name, the rest filled with its length (`str2hashbuf`).
fn words<const N: usize>(name: &[u8], signed: bool) -> [u32; N] {
    // Names have at most 255 bytes.
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX) & 0xFF;
    let pad = length.wrapping_mul(0x0101_0101);
    let mut out = [pad; N];
    for (word, bytes) in out.iter_mut().zip(name.chunks(4)) {
        *word = bytes.iter().fold(pad, |value, &c| {
            character(c, signed).wrapping_add(value.wrapping_shl(8))
        });
    }
    out
}

fn legacy(name: &[u8], signed: bool) -> u32 {
    let (mut hash0, mut hash1) = (0x12A3_FE2D_u32, 0x37AB_E8F9_u32);
    for &c in name {
        let product = character(c, signed).wrapping_mul(7_152_373);
        let mut hash = hash1.wrapping_add(hash0 ^ product);
        if hash & 0x8000_0000 != 0 {
            hash = hash.wrapping_sub(0x7FFF_FFFF);
        }
        hash1 = hash0;
        hash0 = hash;
    }
    hash0.wrapping_shl(1)
}

fn tea(state: &mut [u32; 4], [a, b, c, d]: [u32; 4]) {
    let [mut b0, mut b1, ..] = *state;
    let mut sum = 0u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9E37_79B9);
        b0 = b0.wrapping_add(
            b1.wrapping_shl(4).wrapping_add(a) ^ b1.wrapping_add(sum) ^ (b1 >> 5).wrapping_add(b),
        );
        b1 = b1.wrapping_add(
            b0.wrapping_shl(4).wrapping_add(c) ^ b0.wrapping_add(sum) ^ (b0 >> 5).wrapping_add(d),
        );
    }
    let [s0, s1, ..] = state;
    *s0 = s0.wrapping_add(b0);
    *s1 = s1.wrapping_add(b1);
}

/// Three rounds of MD4 over eight words (`half_md4_transform`).
fn half_md4(state: &mut [u32; 4], [i0, i1, i2, i3, i4, i5, i6, i7]: [u32; 8]) {
    let first = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let second = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let third = |x: u32, y: u32, z: u32| x ^ y ^ z;
    let mut s = *state;
    let mut round =
        |f: &dyn Fn(u32, u32, u32) -> u32, k: u32, words: [u32; 8], shifts: [u32; 4]| {
            for (word, shift) in words.into_iter().zip(shifts.into_iter().cycle()) {
                // The registers change roles each step: a, d, c, b.
                let [a, b, c, d] = s;
                let mixed = a
                    .wrapping_add(f(b, c, d))
                    .wrapping_add(word)
                    .wrapping_add(k)
                    .rotate_left(shift);
                s = [d, mixed, b, c];
            }
        };
    round(&first, 0, [i0, i1, i2, i3, i4, i5, i6, i7], [3, 7, 11, 19]);
    round(
        &second,
        0x5A82_7999,
        [i1, i3, i5, i7, i0, i2, i4, i6],
        [3, 5, 9, 13],
    );
    round(
        &third,
        0x6ED9_EBA1,
        [i3, i7, i2, i6, i1, i5, i0, i4],
        [3, 9, 11, 15],
    );
    for (total, part) in state.iter_mut().zip(s) {
        *total = total.wrapping_add(part);
    }
}
