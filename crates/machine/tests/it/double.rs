//! A copy of the double of `computecore.dll` for one test, and what that test asks and tells it.

mod sys;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use opengcs_machine::hcs::{Host, StandIn};
use serde::Deserialize;
use serde_json::Value;

/// A double that nobody else has.
pub(crate) struct Double {
    path: PathBuf,
    library: sys::Library,
    pub(crate) sockets: Arc<StandIn>,
}

/// What the double has been asked.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) calls: Vec<(String, Vec<Option<String>>)>,
    pub(crate) operations: i64,
    pub(crate) systems: i64,
    pub(crate) callback: bool,
}

impl Report {
    /// The names of the calls that there were, but for looking around and for rights on files.
    pub(crate) fn names(&self) -> Vec<&str> {
        let names = self.calls.iter().map(|(name, _)| name.as_str());
        names
            .filter(|name| !["enumerate", "properties", "grant", "revoke"].contains(name))
            .collect()
    }

    /// The texts of every call of this name.
    pub(crate) fn texts(&self, name: &str) -> Vec<Vec<String>> {
        let calls = self.calls.iter().filter(|(called, _)| called == name);
        calls
            .map(|(_, texts)| texts.iter().flatten().cloned().collect())
            .collect()
    }

    /// The document of the one call of this name.
    #[track_caller]
    pub(crate) fn document(&self, name: &str) -> Value {
        let texts = self.texts(name);
        assert_eq!(texts.len(), 1, "{self:?}");
        serde_json::from_str(texts[0].last().unwrap()).unwrap()
    }
}

impl Double {
    /// A double for the test `name`, which goes by the script.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "scripts are written in place"
    )]
    pub(crate) fn new(name: &str, script: Value) -> Self {
        let program = std::env::current_exe().unwrap();
        let built = program.parent().unwrap().parent().unwrap();
        let built = built.join("examples").join("computecore.dll");
        // One that is loaded cannot be removed; the next run writes over it.
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.dll"));
        let path = std::path::absolute(path).unwrap();
        std::fs::copy(&built, &path).unwrap();
        let library = sys::Library::load(&path);
        library.script(&script.to_string());
        Self {
            path,
            library,
            sockets: Arc::default(),
        }
    }

    /// A host whose Hyper-V is this double.
    pub(crate) fn host(&self) -> Host {
        Host::new()
            .library(&self.path)
            .stand_in(Arc::clone(&self.sockets))
            .linux_boot(opengcs_machine::hcs::document::LinuxBoot::KernelDirect)
    }

    pub(crate) fn script(&self, script: &Value) {
        self.library.script(&script.to_string());
    }

    pub(crate) fn exit(&self, document: &str) {
        self.library.exit(document);
    }

    pub(crate) fn report(&self) -> Report {
        serde_json::from_str(&self.library.report()).unwrap()
    }

    /// Waits until every handle is closed: what was given up may still be on its way.
    pub(crate) async fn balanced(&self) -> Report {
        loop {
            let report = self.report();
            if (report.operations, report.systems, report.callback) == (0, 0, false) {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
