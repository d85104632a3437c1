//! The suite that every machine passes, on real machines under QEMU.

use opengcs_machine::qemu::Qemu;
use opengcs_machine::{Listener, Machine, Port, Stream};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::conformance::{self, Bench};
use crate::guest::{accept, config};

struct Place {
    machine: Qemu,
    listener: Listener,
    control: Option<BufReader<Stream>>,
    _folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Qemu::create(config(folder.path())).unwrap();
        Self {
            listener: machine.listen(Port(1000)).unwrap(),
            machine,
            control: None,
            _folder: folder,
        }
    }

    async fn send(&mut self, order: &str) -> &mut BufReader<Stream> {
        let control = self.control.as_mut().unwrap();
        control
            .write_all(format!("{order}\n").as_bytes())
            .await
            .unwrap();
        control
    }
}

impl Bench for Place {
    fn machine(&self) -> &dyn Machine {
        &self.machine
    }

    async fn up(&mut self) {
        let control = accept(&self.machine, &mut self.listener).await;
        self.control = Some(BufReader::new(control));
    }

    async fn dial_echo(&mut self, port: Port) {
        let control = self.send(&format!("dial {} echo", port.0)).await;
        let mut answer = String::new();
        control.read_line(&mut answer).await.unwrap();
        assert_eq!(answer.trim(), "ok");
    }

    async fn power_off(&mut self) {
        self.send("poweroff").await;
    }

    fn undialled(&self) -> Option<&'static str> {
        None
    }
}

#[tokio::test]
async fn qemus_machines_pass_the_suite() {
    conformance::starts_and_stops(&mut Place::new()).await;
    conformance::dies_of_itself(&mut Place::new()).await;
    conformance::ends_before_it_starts(&mut Place::new()).await;
}
