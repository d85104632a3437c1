//! Decides whether the processor is virtualised (KVM) or emulated (TCG), and says why.

use crate::config::Acceleration;

/// What was found on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Whether `/dev/kvm` opens for reading and writing; otherwise why not.
    pub kvm_device: Result<(), String>,
    /// Whether the processor shows `vmx` or `svm`.
    pub virtualisation: bool,
}

impl Host {
    /// Looks at this host.
    #[must_use]
    pub fn probe() -> Self {
        let kvm_device = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map(drop)
            .map_err(|error| error.to_string());
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            kvm_device,
            virtualisation: shows_virtualisation(&processors),
        }
    }

    /// Why KVM cannot be counted on here; `None` where it can. A `/dev/kvm` alone is not enough: some hosts
    /// offer one that cannot run stock kernels, and their processors show neither `vmx` nor `svm`.
    #[must_use]
    pub fn lack(&self) -> Option<String> {
        match (&self.kvm_device, self.virtualisation) {
            (Ok(()), true) => None,
            (Ok(()), false) => {
                Some("/dev/kvm opens, but the processor shows neither vmx nor svm".to_owned())
            }
            (Err(error), _) => Some(format!("/dev/kvm does not open: {error}")),
        }
    }
}

/// Whether the flags in a `/proc/cpuinfo` hold `vmx` or `svm`.
fn shows_virtualisation(processors: &str) -> bool {
    processors
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.trim() == "flags")
        .any(|(_, flags)| {
            flags
                .split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}

/// What was taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// KVM; otherwise TCG.
    pub kvm: bool,
    /// For people.
    pub reason: String,
}

/// Chooses by the caller's wish and the host.
#[must_use]
pub fn choose(wish: Acceleration, host: &Host) -> Choice {
    let (kvm, reason) = match (wish, host.lack()) {
        (Acceleration::Kvm, None) => (true, "asked for".to_owned()),
        (Acceleration::Kvm, Some(lack)) => (true, format!("asked for, though {lack}")),
        (Acceleration::Tcg, _) => (false, "asked for".to_owned()),
        (Acceleration::Auto, None) => (
            true,
            "/dev/kvm opens and the processor shows virtualisation".to_owned(),
        ),
        (Acceleration::Auto, Some(lack)) => (false, lack),
    };
    Choice { kvm, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(kvm: bool, virtualisation: bool) -> Host {
        Host {
            kvm_device: if kvm {
                Ok(())
            } else {
                Err("no such file".to_owned())
            },
            virtualisation,
        }
    }

    #[test]
    fn auto_takes_kvm_only_with_the_device_and_the_flag() {
        assert!(choose(Acceleration::Auto, &host(true, true)).kvm);
        for host in [host(true, false), host(false, true), host(false, false)] {
            let choice = choose(Acceleration::Auto, &host);
            assert!(!choice.kvm);
            assert!(!choice.reason.is_empty());
        }
    }

    #[test]
    fn a_wish_overrides() {
        let choice = choose(Acceleration::Kvm, &host(true, false));
        assert!(choice.kvm && choice.reason.contains("neither vmx nor svm"));
        assert!(!choose(Acceleration::Tcg, &host(true, true)).kvm);
    }

    #[test]
    fn flags_are_whole_words_of_the_flags_line() {
        assert!(shows_virtualisation(
            "processor: 0\nflags\t\t: fpu svm sse\n"
        ));
        assert!(shows_virtualisation("flags : vmx\n"));
        assert!(!shows_virtualisation(
            "flags : svm_lock\nmodel name : vmx\n"
        ));
        assert!(!shows_virtualisation("vmx flags : fpu\n"));
    }
}
