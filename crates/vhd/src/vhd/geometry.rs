//! Decides the cylinders, heads and sectors that stand for a size ("Appendix: CHS Calculation").

/// A disk geometry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u16,
    /// Heads.
    pub heads: u8,
    /// Sectors per track.
    pub sectors: u8,
}

impl Geometry {
    /// The geometry that the specification's appendix gives a disk of `size`
    /// bytes. It stands for at most as much, and for 127.5 GiB at most.
    ///
    /// ```
    /// use opengcs_vhd::vhd::Geometry;
    /// let geometry = Geometry::of(1 << 30);
    /// assert_eq!((geometry.cylinders, geometry.heads, geometry.sectors), (2080, 16, 63));
    /// assert!(geometry.size() <= 1 << 30);
    /// ```
    #[must_use]
    pub fn of(size: u64) -> Self {
        const MOST: u64 = 65_535 * 16 * 255;
        let total = (size / 512).min(MOST);
        if total >= 65_535 * 16 * 63 {
            return Self::new(total / 255, 16, 255);
        }
        let tracks = total / 17;
        let heads = tracks.saturating_add(1023).wrapping_div(1024).max(4);
        if tracks < heads.saturating_mul(1024) && heads <= 16 {
            return Self::new(tracks, heads, 17);
        }
        let tracks = total / 31;
        if tracks < 16 * 1024 {
            return Self::new(tracks, 16, 31);
        }
        Self::new(total / 63, 16, 63)
    }

    fn new(tracks: u64, heads: u64, sectors: u8) -> Self {
        let cylinders = tracks.checked_div(heads).unwrap_or(0);
        Self {
            cylinders: u16::try_from(cylinders).unwrap_or(u16::MAX),
            heads: u8::try_from(heads).unwrap_or(u8::MAX),
            sectors,
        }
    }

    /// The size this geometry stands for, in bytes.
    #[must_use]
    pub fn size(self) -> u64 {
        u64::from(self.cylinders)
            .saturating_mul(u64::from(self.heads))
            .saturating_mul(u64::from(self.sectors))
            .saturating_mul(512)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chs(size: u64) -> (u16, u8, u8) {
        let g = Geometry::of(size);
        (g.cylinders, g.heads, g.sectors)
    }

    #[test]
    fn sizes_have_the_appendix_geometry() {
        // Worked by hand from the appendix.
        assert_eq!(chs(1 << 20), (30, 4, 17));
        assert_eq!(chs(20 << 20), (602, 4, 17));
        assert_eq!(chs(127 << 20), (1019, 15, 17));
        assert_eq!(chs(200 << 20), (825, 16, 31));
        assert_eq!(chs(1 << 30), (2080, 16, 63));
        assert_eq!(chs(20 << 30), (41610, 16, 63));
        assert_eq!(chs(127 << 30), (65278, 16, 255));
        assert_eq!(chs(2040 << 30), (65535, 16, 255));
        assert_eq!(chs(0), (0, 4, 17));
    }
}
