//! Resource limits by their names.

use opengcs_bridge::message::OciRlimit;
use rustix::process::{Resource, Rlimit};

use crate::serve::{Outcome, invalid};

/// Reads limits as the OCI specification has them: `RLIMIT_…`, the largest number for "none".
pub(super) fn read(limits: &[OciRlimit]) -> Outcome<Vec<(Resource, Rlimit)>> {
    limits
        .iter()
        .map(|limit| {
            let resource = resource(&limit.kind)
                .ok_or_else(|| invalid(format!("{:?} is not a resource limit", limit.kind)))?;
            if limit.soft > limit.hard {
                return Err(invalid(format!(
                    "{} has a soft limit of {} over its hard one of {}",
                    limit.kind, limit.soft, limit.hard
                )));
            }
            let value = |value: u64| (value != u64::MAX).then_some(value);
            let limit = Rlimit {
                current: value(limit.soft),
                maximum: value(limit.hard),
            };
            Ok((resource, limit))
        })
        .collect()
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name.strip_prefix("RLIMIT_")? {
        "AS" => Resource::As,
        "CORE" => Resource::Core,
        "CPU" => Resource::Cpu,
        "DATA" => Resource::Data,
        "FSIZE" => Resource::Fsize,
        "LOCKS" => Resource::Locks,
        "MEMLOCK" => Resource::Memlock,
        "MSGQUEUE" => Resource::Msgqueue,
        "NICE" => Resource::Nice,
        "NOFILE" => Resource::Nofile,
        "NPROC" => Resource::Nproc,
        "RSS" => Resource::Rss,
        "RTPRIO" => Resource::Rtprio,
        "RTTIME" => Resource::Rttime,
        "SIGPENDING" => Resource::Sigpending,
        "STACK" => Resource::Stack,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(kind: &str, soft: u64, hard: u64) -> OciRlimit {
        OciRlimit {
            kind: kind.to_owned(),
            hard,
            soft,
        }
    }

    #[test]
    fn limits_are_read_by_name() {
        let read = read(&[limit("RLIMIT_NOFILE", 10, u64::MAX)]).unwrap();
        assert!(matches!(read[0].0, Resource::Nofile));
        assert_eq!((read[0].1.current, read[0].1.maximum), (Some(10), None));
    }

    #[test]
    fn odd_limits_are_refused_by_name() {
        for odd in [
            limit("NOFILE", 1, 1),
            limit("RLIMIT_COLOUR", 1, 1),
            limit("RLIMIT_CPU", 2, 1),
        ] {
            let failure = read(std::slice::from_ref(&odd)).unwrap_err();
            assert!(failure.message.contains(&odd.kind), "{failure}");
        }
    }
}
