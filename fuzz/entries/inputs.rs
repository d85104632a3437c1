//! The inputs that the repository keeps for a target: its corpus, and what once went wrong.

use std::fs;
use std::path::Path;

/// Calls `run` with each input of `target`, and says which one it was that panicked.
/// Fails where there are fewer than `least`.
pub fn each(target: &str, least: usize, run: impl Fn(&[u8])) {
    struct Telling(String);
    impl Drop for Telling {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the input was {}", self.0);
            }
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut count = 0;
    for kind in ["corpus", "regressions"] {
        let Ok(entries) = fs::read_dir(folder.join(kind).join(target)) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a folder that can be listed").path();
            let bytes = fs::read(&path).expect("an input that can be read");
            let _telling = Telling(path.display().to_string());
            run(&bytes);
            count += 1;
        }
    }
    assert!(count >= least, "only {count} inputs for {target}");
}
