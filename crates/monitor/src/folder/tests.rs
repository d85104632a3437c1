//! Who holds a name, and what is left of those who held it.

use super::*;

fn folders() -> (tempfile::TempDir, Folders) {
    let parent = tempfile::tempdir().unwrap();
    let environment = Environment::fixed([("XDG_RUNTIME_DIR", parent.path())]);
    let folders = Folders::of(&environment).unwrap();
    (parent, folders)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn ended(text: &str, ended_ms: u64) -> Ended {
    Ended {
        name: name(text),
        started_ms: 1,
        ended_ms,
        reason: "the guest powered off".into(),
        bundle: None,
    }
}

#[test]
fn a_name_is_held_once_and_free_again_afterwards() {
    let (_parent, folders) = folders();
    assert_eq!(folders.list().unwrap(), []);
    let claim = folders.claim(&name("a")).unwrap();
    let error = folders.claim(&name("a")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    let living = Found::Living(name("a"), folders.path().join("a"));
    assert_eq!(folders.list().unwrap(), [living]);
    assert_eq!(
        folders.forget(&name("a")).unwrap_err().kind(),
        ErrorKind::InUse
    );
    claim.release(None).unwrap();
    assert_eq!(folders.list().unwrap(), []);
    assert_eq!(
        folders.find(&name("a")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    folders.claim(&name("a")).unwrap();
}

#[test]
fn of_starts_at_once_one_gets_the_name() {
    let (_parent, folders) = folders();
    for _ in 0..20 {
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let one = || {
                folders.list().unwrap();
                folders.claim(&name("a"))
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let held: Vec<_> = outcomes.into_iter().flatten().collect();
        assert_eq!(held.len(), 1);
    }
}

#[test]
fn what_a_killed_monitor_left_goes_and_what_was_recorded_stays() {
    let (_parent, folders) = folders();
    // Dropped without a word, as by SIGKILL.
    let killed = folders.claim(&name("killed")).unwrap();
    std::fs::write(killed.path().join("console.log"), "x").unwrap();
    drop(killed);
    let died = folders.claim(&name("died")).unwrap();
    let path = died.path().to_owned();
    std::fs::write(path.join("console.log"), "panic").unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(path.join("monitor.sock")).unwrap();
    died.release(Some(&ended("died", 5))).unwrap();

    let found = folders.list().unwrap();
    assert_eq!(found, [Found::Ended(ended("died", 5), path.clone())]);
    assert!(!folders.path().join("killed").exists());
    assert!(path.join("console.log").exists() && !path.join("monitor.sock").exists());

    let again = folders.claim(&name("died")).unwrap();
    assert!(!path.join("console.log").exists());
    drop(again);
    folders.forget(&name("died")).unwrap();
    assert_eq!(folders.list().unwrap(), []);
}

#[test]
fn only_the_newest_dead_are_remembered() {
    let (_parent, folders) = folders();
    for number in 0..=REMEMBERED as u64 {
        let text = format!("vm{number}");
        let claim = folders.claim(&name(&text)).unwrap();
        claim.release(Some(&ended(&text, number))).unwrap();
    }
    let found = folders.list().unwrap();
    assert_eq!(found.len(), REMEMBERED);
    assert!(found.iter().all(|found| found.name() != &name("vm0")));
}

#[test]
fn strangers_in_the_folder_are_left_alone() {
    let (parent, folders) = folders();
    folders.claim(&name("a")).unwrap().release(None).unwrap();
    let target = parent.path().join("target");
    std::fs::create_dir(&target).unwrap();
    std::os::unix::fs::symlink(&target, folders.path().join("link")).unwrap();
    std::fs::write(folders.path().join("file"), "x").unwrap();
    std::fs::create_dir(folders.path().join(".hidden")).unwrap();
    assert_eq!(folders.list().unwrap(), []);
    assert!(folders.claim(&name("link")).is_err() && folders.claim(&name("file")).is_err());
    assert!(target.exists() && folders.path().join(".hidden").exists());
}
