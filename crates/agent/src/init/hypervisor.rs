//! Which hypervisor the machine runs on, as its processor says.

/// What decides how a machine comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hypervisor {
    HyperV,
    /// QEMU without KVM, whose processor is emulated.
    Emulation,
    Other,
}

impl Hypervisor {
    /// Asks the processor.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn here() -> Self {
        use crate::sys::cpuid;

        /// Of leaf 1, in ECX: there is a hypervisor, and it has leaves of its own.
        const PRESENT: u32 = 1 << 31;
        const VENDOR: u32 = 0x4000_0000;

        let [_, _, features, _] = cpuid(1);
        if features & PRESENT == 0 {
            return Self::Other;
        }
        let [_, b, c, d] = cpuid(VENDOR);
        Self::of([b, c, d])
    }

    /// Only x86 says it so simply.
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn here() -> Self {
        Self::Other
    }

    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    fn of(vendor: [u32; 3]) -> Self {
        match vendor.map(u32::to_le_bytes).concat().as_slice() {
            b"Microsoft Hv" => Self::HyperV,
            b"TCGTCGTCGTCG" => Self::Emulation,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_are_known_by_their_names() {
        let words = |name: &[u8; 12]| {
            let word = |at: usize| u32::from_le_bytes(name[at..at + 4].try_into().unwrap());
            [word(0), word(4), word(8)]
        };
        assert_eq!(Hypervisor::of(words(b"Microsoft Hv")), Hypervisor::HyperV);
        assert_eq!(
            Hypervisor::of(words(b"TCGTCGTCGTCG")),
            Hypervisor::Emulation
        );
        assert_eq!(Hypervisor::of(words(b"KVMKVMKVM\0\0\0")), Hypervisor::Other);
    }
}
