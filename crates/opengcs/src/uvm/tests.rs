//! A VM of memory: a machine that is none, and a guest that speaks the bridge.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opengcs_machine::{ExitReason, MachineConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::environment::Environment;
use crate::guest::bzimage::tests::fake_kernel;
use crate::guest::initrd;
use guest::Guest;
use machine::Fake;

mod disks;
mod given_up;
mod guest;
mod machine;
mod processes;
mod starting;

/// Folders and a configuration that is valid, for machines of memory.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bootx64.efi"), fake_kernel("6.1.0")).unwrap();
        let contents = initrd::Contents {
            release: "6.1.0".into(),
            ..initrd::Contents::default()
        };
        let bytes = initrd::write(&contents, initrd::Compression::None, Vec::new()).unwrap();
        std::fs::write(folder.path().join("initrd.img"), bytes).unwrap();
        std::fs::create_dir(folder.path().join("run")).unwrap();
        Self { folder }
    }

    fn config(&self, words: &[&str]) -> Config {
        let path = |name: &str| self.folder.path().join(name).into_os_string();
        let environment = Environment::fixed([
            ("OPENGCS_DATA_DIR", path("")),
            ("XDG_RUNTIME_DIR", path("run")),
        ]);
        Config::generate_default_with(words, &environment).unwrap()
    }

    fn disk(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, vec![0; 4096]).unwrap();
        path
    }

    async fn start(&self, machine: &Arc<Fake>) -> Result<UtilityVm> {
        self.start_with(machine, self.config(&["lcow.timeout=20"]))
            .await
    }

    async fn start_with(&self, machine: &Arc<Fake>, config: Config) -> Result<UtilityVm> {
        let machine = Arc::clone(machine);
        UtilityVm::start_on(config, move |_: MachineConfig| {
            Ok(machine as Arc<dyn Machine>)
        })
        .await
    }

    fn runtime_files(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("run"))
            .unwrap()
            .count()
    }
}

/// The start's error; a VM has no `Debug` that would help a failing test.
fn failure(outcome: Result<UtilityVm>) -> Error {
    match outcome {
        Ok(_) => panic!("the VM came up"),
        Err(error) => error,
    }
}
