//! Which numbers a user's and a group's names stand for.

use std::{
    io::{self, Read as _},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    process::{Gid, Uid},
};

/// No list of users or groups is larger.
const LARGEST: u64 = 4 << 20;

/// Whom a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// More groups, by number.
    pub(crate) groups: Vec<u32>,
    /// The user's folder, if there is such a user.
    pub(crate) home: Option<String>,
}

impl Identity {
    /// All of it as the kernel takes it, the group among the groups.
    pub(crate) fn numbers(&self) -> (Uid, Gid, Vec<Gid>) {
        let mut groups = vec![self.gid];
        groups.extend(self.groups.iter().filter(|gid| **gid != self.gid));
        let groups = groups.into_iter().map(Gid::from_raw).collect();
        (Uid::from_raw(self.uid), Gid::from_raw(self.gid), groups)
    }
}

/// Reads `etc/passwd` and `etc/group` of a root file system; what is not there is empty. Symbolic
/// links do not lead out of `root`.
pub(crate) fn lists(root: &Path) -> io::Result<[String; 2]> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let folder = openat(CWD, root, flags, Mode::empty())?;
    let read = |name: &str| -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match openat2(&folder, name, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            Ok(file) => std::fs::File::from(file),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok([read("etc/passwd")?, read("etc/group")?])
}

/// Looks up `user` or `user:group`, each by name or number.
///
/// A number needs no entry. Without a group it is the user's own, or 0 when there is no such user,
/// and the user has the groups that name it.
pub(crate) fn look_up(who: &str, [passwd, group]: &[String; 2]) -> Result<Identity, String> {
    let (user, wanted_group) = match who.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (who, None),
    };
    let entry = passwd.lines().map(fields).find(|entry| {
        let by_number = user.parse::<u32>().ok() == number(entry, 2) && number(entry, 2).is_some();
        entry.first() == Some(&user) || by_number
    });
    let entry = entry.filter(|entry| number(entry, 2).is_some());
    let uid = match (&entry, user.parse::<u32>()) {
        (Some(entry), _) => number(entry, 2).unwrap_or_default(),
        (None, Ok(uid)) => uid,
        (None, Err(_)) => return Err(format!("there is no user {user:?}")),
    };
    let gid = match wanted_group {
        Some(wanted) => {
            let named = group
                .lines()
                .map(fields)
                .find(|entry| entry.first() == Some(&wanted));
            named
                .and_then(|entry| number(&entry, 2))
                .or_else(|| wanted.parse().ok())
                .ok_or_else(|| format!("there is no group {wanted:?}"))?
        }
        None => entry
            .as_ref()
            .and_then(|entry| number(entry, 3))
            .unwrap_or(0),
    };
    let name = entry.as_ref().and_then(|entry| entry.first().copied());
    let groups = match (wanted_group, name) {
        (None, Some(name)) => group
            .lines()
            .map(fields)
            .filter(|entry| {
                entry
                    .get(3)
                    .is_some_and(|all| all.split(',').any(|one| one == name))
            })
            .filter_map(|entry| number(&entry, 2))
            .collect(),
        _ => Vec::new(),
    };
    let home = entry.as_ref().and_then(|entry| entry.get(5));
    Ok(Identity {
        uid,
        gid,
        groups,
        home: home
            .filter(|home| !home.is_empty())
            .map(ToString::to_string),
    })
}

fn fields(line: &str) -> Vec<&str> {
    line.trim().split(':').collect()
}

fn number(entry: &[&str], index: usize) -> Option<u32> {
    entry.get(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> [String; 2] {
        [
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/false\nbroken\n7:x:9:9::/:\n"
                .into(),
            "root:x:0:\nstaff:x:50:web,other\nvideo:x:44:nobody,web\nodd:x:none:web\n".into(),
        ]
    }

    #[test]
    fn names_and_numbers_are_found() {
        let look = |who: &str| {
            let found = look_up(who, &given()).unwrap();
            (found.uid, found.gid, found.groups, found.home)
        };
        let home = Some("/srv/web".to_owned());
        assert_eq!(look("web"), (33, 34, vec![50, 44], home.clone()));
        assert_eq!(look("33"), (33, 34, vec![50, 44], home.clone()));
        assert_eq!(look("web:staff"), (33, 50, vec![], home.clone()));
        assert_eq!(look("web:7"), (33, 7, vec![], home));
        assert_eq!(look("1234"), (1234, 0, vec![], None));
        assert_eq!(look("1234:video"), (1234, 44, vec![], None));
        // A name that looks like a number is a name first.
        assert_eq!(look("7").0, 9);
    }

    #[test]
    fn who_is_not_there_is_named() {
        for (who, named) in [
            ("nobody", "user \"nobody\""),
            ("", "user \"\""),
            ("-1", "user \"-1\""),
            ("web:none", "group \"none\""),
            ("broken", "user \"broken\""),
            ("web:odd", "group \"odd\""),
            ("4294967296", "user"),
        ] {
            let error = look_up(who, &given()).unwrap_err();
            assert!(error.contains(named), "{who}: {error}");
        }
        assert!(look_up("web", &[String::new(), String::new()]).is_err());
    }

    #[test]
    fn lists_are_read_within_the_root() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(lists(root.path()).unwrap(), [String::new(), String::new()]);
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/hidden", root.path().join("etc/passwd")).unwrap();
        std::fs::write(root.path().join("hidden"), "in:x:1:1::/:\n").unwrap();
        std::fs::create_dir(root.path().join("etc/group")).unwrap();
        let [passwd, group] = lists(root.path()).unwrap();
        assert_eq!((&*passwd, &*group), ("in:x:1:1::/:\n", ""));
    }
}
