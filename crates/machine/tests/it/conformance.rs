//! What every machine does alike, written once: start, listen, attach, detach, stop, die.

use std::path::Path;
use std::time::Duration;

use opengcs_machine::{DiskFormat, DiskSpec, ErrorKind, ExitReason, Machine, Port, Slot, State};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A machine that is created, and a hold on its guest.
pub(crate) trait Bench {
    fn machine(&self) -> &dyn Machine;

    /// Returns when the guest obeys; the machine has been powered on.
    async fn up(&mut self);

    /// Has the guest dial `port` and send back what it gets, to its end.
    async fn dial_echo(&mut self, port: Port);

    /// Has the guest power itself off.
    async fn power_off(&mut self);

    /// Why the guest cannot be dialled, if it cannot be.
    fn undialled(&self) -> Option<&'static str>;
}

/// A file that passes for a fixed VHD: the bytes and a footer.
fn disk(folder: &Path, name: &str) -> DiskSpec {
    let path = folder.join(name);
    std::fs::write(&path, vec![0; (1 << 20) + 512]).unwrap();
    DiskSpec::new(path, DiskFormat::FixedVhd, true)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: opengcs_machine::Result<T>, kind: ErrorKind) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

const FIRST: Slot = Slot {
    controller: 0,
    lun: 0,
};

/// From the start to a stop.
pub(crate) async fn starts_and_stops(bench: &mut impl Bench) {
    let folder = tempfile::tempdir().unwrap();
    let first = disk(folder.path(), "first.vhd");
    let second = disk(folder.path(), "second.vhd");
    let port = Port(2000);

    let machine = bench.machine();
    assert_eq!(machine.state(), State::Created);
    refused(machine.attach(first.clone()).await, ErrorKind::WrongState);
    refused(machine.connect(port).await, ErrorKind::WrongState);
    let mut listener = machine.listen(port).unwrap();
    refused(machine.listen(port).map(drop), ErrorKind::PortInUse);

    machine.power_on().await.unwrap();
    assert_eq!(machine.state(), State::Running);
    refused(machine.power_on().await, ErrorKind::WrongState);
    bench.up().await;

    // Listened on before the start, and after it; a port that is given up can be had again.
    for port in [port, Port(2001), Port(2001)] {
        let mut late = (port != Port(2000)).then(|| bench.machine().listen(port).unwrap());
        bench.dial_echo(port).await;
        let accepted = match &mut late {
            Some(late) => late.accept().await,
            None => listener.accept().await,
        };
        let mut stream = accepted.unwrap();
        stream.write_all(b"to the guest and back").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = String::new();
        stream.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "to the guest and back");
    }

    let machine = bench.machine();
    match bench.undialled() {
        None => refused(
            machine.connect(Port(77)).await,
            ErrorKind::ConnectionRefused,
        ),
        Some(why) => eprintln!("left out: dialling the guest, because {why}"),
    }

    assert_eq!(machine.attach(first.clone()).await.unwrap(), FIRST);
    refused(machine.attach(first.clone()).await, ErrorKind::DiskInUse);
    let nothing = DiskSpec::new(folder.path().join("x"), DiskFormat::FixedVhd, true);
    refused(machine.attach(nothing).await, ErrorKind::NotFound);
    let slot = machine.attach(second).await.unwrap();
    assert_eq!((slot.controller, slot.lun), (0, 1));
    machine.detach(FIRST).await.unwrap();
    refused(machine.detach(FIRST).await, ErrorKind::NotFound);
    // The file can be had again at once; its slot, the lowest, when the hypervisor has taken the device
    // apart.
    let mut again = machine.attach(first.clone()).await.unwrap();
    for _ in 0..100 {
        if again == FIRST {
            break;
        }
        machine.detach(again).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        again = machine.attach(first.clone()).await.unwrap();
    }
    assert_eq!(again, FIRST);

    assert_eq!(machine.terminate().await.reason, ExitReason::Terminated);
    assert_eq!(machine.terminate().await.reason, ExitReason::Terminated);
    assert_eq!(machine.wait().await.reason, ExitReason::Terminated);
    assert_eq!(machine.state(), State::Stopped);
    let nobody = listener.accept().await.unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::UnexpectedEof);
    refused(machine.attach(first).await, ErrorKind::GuestDied);
    refused(machine.detach(FIRST).await, ErrorKind::GuestDied);
    refused(machine.connect(port).await, ErrorKind::GuestDied);
    refused(machine.power_off().await, ErrorKind::GuestDied);
    refused(machine.listen(Port(3000)).map(drop), ErrorKind::WrongState);
    refused(machine.power_on().await, ErrorKind::WrongState);
}

/// From the start to the guest's own end.
pub(crate) async fn dies_of_itself(bench: &mut impl Bench) {
    let mut listener = bench.machine().listen(Port(2000)).unwrap();
    bench.machine().power_on().await.unwrap();
    bench.up().await;
    bench.power_off().await;
    let machine = bench.machine();
    assert_eq!(machine.wait().await.reason, ExitReason::PoweredOff);
    assert_eq!(machine.state(), State::Stopped);
    assert!(listener.accept().await.is_err());
    // Whoever ends it later is told how it ended.
    assert_eq!(machine.terminate().await.reason, ExitReason::PoweredOff);
}

/// A machine that never runs.
pub(crate) async fn ends_before_it_starts(bench: &mut impl Bench) {
    let machine = bench.machine();
    let mut listener = machine.listen(Port(2000)).unwrap();
    assert_eq!(machine.terminate().await.reason, ExitReason::Terminated);
    assert_eq!(machine.state(), State::Stopped);
    assert!(listener.accept().await.is_err());
    refused(machine.power_on().await, ErrorKind::WrongState);
}
