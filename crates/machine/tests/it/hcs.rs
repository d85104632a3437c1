//! Hyper-V's backend on a double of its library, with loopback sockets for Hyper-V's.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use opengcs_machine::hcs::{Hcs, Host};
use opengcs_machine::{
    Boot, DiskFormat, DiskSpec, ErrorKind, ExitReason, Machine, MachineConfig, Port, State,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::conformance::{self, Bench};
use crate::double::Double;

mod failures;

pub(crate) const GRACEFUL: &str = r#"{"Status":0,"ExitType":"GracefulExit"}"#;
pub(crate) const FORCED: &str = r#"{"Status":0,"ExitType":"ForcedExit",
    "Attribution":[{"WorkerExit":{"Type":"Stopped","Detail":"PowerOff","Initiator":"Client"}}]}"#;

/// A machine on a double, in a folder with a kernel and an initrd.
pub(crate) struct Place {
    pub(crate) double: Double,
    pub(crate) machine: Hcs,
    pub(crate) folder: TempDir,
}

impl Place {
    pub(crate) fn new(name: &str, script: serde_json::Value) -> Self {
        Self::with(name, script, |host| host)
    }

    pub(crate) fn with(
        name: &str,
        script: serde_json::Value,
        change: impl FnOnce(Host) -> Host,
    ) -> Self {
        let double = Double::new(name, script);
        let folder = tempfile::tempdir().unwrap();
        let machine = Hcs::create(config(folder.path()), change(double.host())).unwrap();
        Self {
            double,
            machine,
            folder,
        }
    }

    pub(crate) fn disk(&self, name: &str) -> DiskSpec {
        let path = self.folder.path().join(name);
        std::fs::write(&path, [0; 4096]).unwrap();
        DiskSpec::new(path, DiskFormat::Vhdx, false)
    }

    async fn dial(&self, port: Port) -> tokio::net::TcpStream {
        let stands = self.double.sockets.host_port(port).unwrap();
        tokio::net::TcpStream::connect(("127.0.0.1", stands))
            .await
            .unwrap()
    }
}

pub(crate) fn config(folder: &Path) -> MachineConfig {
    let file = |name: &str| {
        std::fs::write(folder.join(name), name).unwrap();
        folder.join(name)
    };
    MachineConfig::new(
        "test",
        folder,
        Boot::LinuxKernel {
            kernel: file("bootx64.efi"),
            initrd: Some(file("initrd.img")),
            command_line: "quiet".to_owned(),
        },
    )
    .scsi_controllers(4)
}

impl Bench for Place {
    fn machine(&self) -> &dyn Machine {
        &self.machine
    }

    async fn up(&mut self) {
        self.double
            .script(&json!({ "terminate": { "exit": FORCED } }));
    }

    async fn dial_echo(&mut self, port: Port) {
        let mut stream = self.dial(port).await;
        tokio::spawn(async move {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
    }

    async fn power_off(&mut self) {
        self.double.exit(GRACEFUL);
    }

    fn undialled(&self) -> Option<&'static str> {
        None
    }
}

#[tokio::test]
async fn hyper_vs_backend_passes_the_suite_and_closes_what_it_opens() {
    let mut place = Place::new("suite-stop", json!({}));
    conformance::starts_and_stops(&mut place).await;
    let Place {
        double, machine, ..
    } = place;
    drop(machine);
    let report = double.balanced().await;
    let names = report.names();
    let modifies = ["modify"; 4];
    assert_eq!(names[..2], ["create", "start"]);
    assert_eq!(names[2..6], modifies);
    assert_eq!(names[6..], ["terminate", "close"]);
    // Every right that was given is taken back.
    let sorted = |name| {
        let mut texts = report.texts(name);
        texts.sort();
        texts.dedup();
        texts
    };
    assert_eq!(sorted("grant"), sorted("revoke"));

    let mut place = Place::new("suite-die", json!({}));
    conformance::dies_of_itself(&mut place).await;
    drop(place.machine);
    place.double.balanced().await;

    let mut place = Place::new("suite-never", json!({}));
    conformance::ends_before_it_starts(&mut place).await;
    let report = place.double.report();
    assert!(
        report.calls.is_empty(),
        "hyper-v is not even asked: {report:?}"
    );
}

#[tokio::test]
async fn documents_say_what_was_asked_for() {
    let place = Place::new("documents", json!({}));
    place.machine.power_on().await.unwrap();
    let disk = place.disk("ünïcode \u{1F427}.vhdx");
    place.machine.attach(disk.clone()).await.unwrap();
    let report = place.double.report();

    let id = &report.texts("create")[0][0];
    assert_eq!(id.len(), 36, "{id}");
    let created = report.document("create");
    let devices = &created["VirtualMachine"]["Devices"];
    assert_eq!(devices["Scsi"].as_object().unwrap().len(), 4);
    let kernel = &created["VirtualMachine"]["Chipset"]["LinuxKernelDirect"]["KernelFilePath"];
    let kernel = Path::new(kernel.as_str().unwrap());
    assert!(
        kernel.is_absolute() && kernel.ends_with("bootx64.efi"),
        "{kernel:?}"
    );
    let owner = created["Owner"].as_str().unwrap();
    assert!(
        owner.starts_with(&format!("opengcs-{}-", std::process::id())),
        "{owner}"
    );

    let modified = report.document("modify");
    assert_eq!(modified["Settings"]["Path"], disk.path.to_str().unwrap());
    let granted = report.texts("grant");
    assert!(granted.contains(&vec![id.clone(), disk.path.to_str().unwrap().to_owned()]));
    assert!(granted.iter().all(|texts| texts[0] == *id));
}

#[tokio::test]
async fn long_texts_go_through_whole() {
    let double = Double::new("long", json!({}));
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let long = format!("x={}\u{1F427}", "y".repeat(100_000));
    if let Boot::LinuxKernel { command_line, .. } = &mut config.boot {
        command_line.clone_from(&long);
    }
    let machine = Hcs::create(config, double.host()).unwrap();
    machine.power_on().await.unwrap();
    let created = double.report().document("create");
    let words = &created["VirtualMachine"]["Chipset"]["LinuxKernelDirect"]["KernelCmdLine"];
    assert!(words.as_str().unwrap().ends_with(&long));
}

#[tokio::test]
async fn the_console_is_recorded_and_a_panic_on_it_told() {
    let console = "booting\r\nKernel panic - not syncing: no init found\r\n";
    let place = Place::new("console", json!({ "console": console }));
    place.machine.power_on().await.unwrap();
    while !place.machine.console_tail().contains("no init") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let recorded = std::fs::read_to_string(place.machine.console()).unwrap();
    assert_eq!(recorded, console);
    place
        .double
        .exit(r#"{"Status":-1,"ExitType":"UnexpectedExit"}"#);
    let exit = place.machine.wait().await;
    assert_eq!(exit.reason, ExitReason::Panicked("no init found".into()));
    assert!(place.machine.stderr_tail().contains("UnexpectedExit"));
    let path = place.machine.console();
    drop(place.machine);
    // The file goes when the task that records has let go of it.
    for _ in 0..500 {
        if !path.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!path.exists());
}

#[tokio::test]
async fn streams_carry_much_both_ways_and_end_each_way_apart() {
    let place = Place::new("streams", json!({}));
    let mut listener = place.machine.listen(Port(0x4000_0001)).unwrap();
    place.machine.power_on().await.unwrap();
    let mut guest = place.dial(Port(0x4000_0001)).await;
    let mut host = listener.accept().await.unwrap();

    // The guest ends its side first, and still hears.
    guest.write_all(b"last words").await.unwrap();
    guest.shutdown().await.unwrap();
    let mut heard = Vec::new();
    host.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
    let sent: Vec<u8> = (0..=250_u8).cycle().take(5 << 20).collect();
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        host.write_all(&copy).await.unwrap();
        host.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    guest.read_to_end(&mut back).await.unwrap();
    writing.await.unwrap();
    assert!(back == sent);

    // We dial, too; a guest that goes away is heard.
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stands = server.local_addr().unwrap().port();
    place.double.sockets.guest_listens(Port(77), stands);
    let mut host = place.machine.connect(Port(77)).await.unwrap();
    let (mut guest, _) = server.accept().await.unwrap();
    host.write_all(b"hello").await.unwrap();
    let mut hello = [0; 5];
    guest.read_exact(&mut hello).await.unwrap();
    drop(guest);
    assert_eq!(host.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn connections_wait_for_accept_and_too_many_are_closed() {
    let place = Place::new("backlog", json!({}));
    let mut listener = place.machine.listen(Port(9)).unwrap();
    place.machine.power_on().await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..140 {
        let mut guest = place.dial(Port(9)).await;
        let tell = tell.clone();
        tokio::spawn(async move {
            let _ = guest.read(&mut [0; 1]).await;
            tell.send(number).unwrap();
        });
    }
    let mut closed = Vec::new();
    while closed.len() < 12 {
        closed.push(told.recv().await.unwrap());
    }
    closed.sort_unstable();
    assert_eq!(closed, (128..140).collect::<Vec<_>>());
    let mut kept = Vec::new();
    for _ in 0..128 {
        kept.push(listener.accept().await.unwrap());
    }
    assert!(told.is_empty());
    drop(listener);
    assert_eq!(place.double.sockets.host_port(Port(9)), None);
}

#[tokio::test]
async fn what_a_killed_owner_left_is_ended_and_nothing_else() {
    let own = std::process::id();
    let listing = json!([
        { "Id": "dead", "Owner": "opengcs-4294967280-1" },
        { "Id": "reused", "Owner": format!("opengcs-{own}-1") },
        { "Id": "unborn", "Owner": format!("opengcs-{own}-0") },
        { "Id": "docker", "Owner": "docker" },
        { "Owner": "opengcs-4294967280-1" },
    ]);
    let script = json!({ "enumerate": { "document": listing.to_string() } });
    let place = Place::new("leftovers", script);
    place.machine.power_on().await.unwrap();
    let report = place.double.report();
    let opened: Vec<_> = report.texts("open").concat();
    assert_eq!(opened, ["dead", "reused"]);
    let names = [
        "open",
        "terminate",
        "close",
        "open",
        "terminate",
        "close",
        "create",
        "start",
    ];
    assert_eq!(report.names(), names);
    assert_eq!(report.systems, 1);
}

#[tokio::test]
async fn a_dropped_machine_is_ended_and_closed() {
    let place = Place::new("dropped", json!({}));
    let mut listener = place.machine.listen(Port(7)).unwrap();
    place.machine.power_on().await.unwrap();
    drop(place.machine);
    assert!(listener.accept().await.is_err());
    let report = place.double.balanced().await;
    assert_eq!(report.names(), ["create", "start", "terminate", "close"]);
    assert_eq!(place.double.sockets.host_port(Port(7)), None);
}

#[tokio::test]
async fn a_start_that_is_given_up_is_undone() {
    let place = Place::new("given-up", json!({ "start": { "never": true } }));
    let machine = Arc::new(place.machine);
    {
        let start = machine.power_on();
        tokio::pin!(start);
        // Until Hyper-V has been asked to start it.
        while !place.double.report().names().contains(&"start") {
            let wait = tokio::time::sleep(Duration::from_millis(5));
            tokio::select! { _ = &mut start => panic!("it started"), () = wait => {} }
        }
    }
    assert_eq!(machine.state(), State::Failed);
    assert_eq!(machine.wait().await.reason, ExitReason::Terminated);
    assert_eq!(
        machine.power_on().await.unwrap_err().kind(),
        ErrorKind::WrongState
    );
}
