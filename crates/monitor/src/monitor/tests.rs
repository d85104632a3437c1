//! A monitor with a VM in memory, asked over its socket as clients do.

use std::sync::Mutex;

use bytes::Bytes;
use opengcs::{Environment, Signal};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use self::fake::Fake;
use super::*;
use crate::client::{Client, Event, Exec};
use crate::folder::{Folders, Found};
use crate::name::Name;
use crate::proto::{self, vm::State};

mod fake;

/// A monitor that runs, and what its surroundings can do to it.
struct Held {
    _parent: tempfile::TempDir,
    folders: Folders,
    vm: Arc<Fake>,
    /// Lets the VM come up.
    up: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
    /// The starter: it takes the VM over, or goes.
    starter: Option<oneshot::Sender<()>>,
    reported: Arc<Mutex<Option<std::result::Result<(), Error>>>>,
    outcome: JoinHandle<Result<Outcome>>,
}

fn name() -> Name {
    "a".parse().unwrap()
}

async fn ended(told: oneshot::Receiver<()>) {
    let _ = told.await;
}

impl Held {
    /// A monitor whose VM has not come up yet.
    fn starting() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let environment = Environment::fixed([("XDG_RUNTIME_DIR", parent.path())]);
        let folders = Folders::of(&environment).unwrap();
        let claim = folders.claim(&name()).unwrap();
        let facts = Facts {
            name: name(),
            folder: claim.path().to_owned(),
            started_ms: now_ms(),
            memory_mib: 512,
            processors: 2,
            scsi_controllers: 1,
        };
        let (vm, up) = (Arc::new(Fake::default()), Arc::new(Notify::new()));
        let start = {
            let (vm, up) = (Arc::clone(&vm), Arc::clone(&up));
            async move {
                up.notified().await;
                Ok(vm as Arc<dyn Vm>)
            }
        };
        let (stop, stopped) = oneshot::channel();
        let (starter, taken) = oneshot::channel();
        let surroundings = Surroundings {
            stop: ended(stopped),
            taken: async { taken.await.is_ok() },
            bundles: Some(parent.path().to_owned()),
        };
        let reported = Arc::new(Mutex::new(None));
        let report = {
            let reported = Arc::clone(&reported);
            move |outcome: std::result::Result<(), &Error>| {
                *reported.lock().unwrap() = Some(outcome.map_err(Clone::clone));
            }
        };
        let outcome = tokio::spawn(hold_this(claim, facts, start, surroundings, report));
        Self {
            _parent: parent,
            folders,
            vm,
            up,
            stop: Some(stop),
            starter: Some(starter),
            reported,
            outcome,
        }
    }

    async fn running() -> (Self, Client) {
        let (mut held, client) = Self::up().await;
        held.starter.take().unwrap().send(()).unwrap();
        (held, client)
    }

    /// One whose VM has come up, and whose starter has not said yet that it takes it over.
    async fn up() -> (Self, Client) {
        let held = Self::starting();
        held.up.notify_one();
        let mut client = held.client().await;
        while client.inspect().await.unwrap().state() != State::Running {
            tokio::task::yield_now().await;
        }
        assert_eq!(*held.reported.lock().unwrap(), Some(Ok(())));
        (held, client)
    }

    async fn client(&self) -> Client {
        Client::connect(&self.folders, &name()).await.unwrap()
    }

    fn found(&self) -> Vec<Found> {
        self.folders.list().unwrap()
    }
}

async fn exec(client: &mut Client, command: &str) -> Exec {
    let start = proto::ExecStart {
        command: vec![command.to_owned()],
        stdin: true,
        ..proto::ExecStart::default()
    };
    client.exec(start).await.unwrap()
}

/// All that a process writes until it ends, and its exit code.
async fn to_the_end(process: &mut Exec) -> (Vec<u8>, Vec<u8>, u32) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match process.next().await.unwrap() {
            Event::Stdout(bytes) => out.extend_from_slice(&bytes),
            Event::Stderr(bytes) => err.extend_from_slice(&bytes),
            Event::Exited(code) => return (out, err, code),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_whole_and_the_exit_code_comes_last() {
    let (_held, mut client) = Held::running().await;
    let mut process = exec(&mut client, "cat").await;
    let input = process.take_input().unwrap();
    let chunk = Bytes::from(vec![b'x'; 100_000]);
    let feed = async {
        for _ in 0..50 {
            assert!(input.send(chunk.clone()).await);
        }
        drop(input);
    };
    let ((), (out, err, code)) = tokio::join!(feed, to_the_end(&mut process));
    assert_eq!(out.len(), 50 * chunk.len());
    assert_eq!((err.as_slice(), code), (&b"over\n"[..], 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_passes_input_that_nobody_reads() {
    let (held, mut client) = Held::running().await;
    let mut process = exec(&mut client, "deaf").await;
    let input = process.take_input().unwrap();
    // It takes what fits into windows and buffers, and no more.
    let chunk = Bytes::from(vec![0; 64 << 10]);
    let mut taken = 0;
    let patience = Duration::from_millis(500);
    while let Ok(true) = tokio::time::timeout(patience, input.send(chunk.clone())).await {
        taken += chunk.len();
        assert!(taken < 8 << 20, "the input piles up somewhere");
    }
    process.control().signal(Signal::TERM).await.unwrap();
    assert_eq!(to_the_end(&mut process).await.2, 128 + 15);
    assert_eq!(held.vm.signals(), [15]);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_nobody_takes_stops_its_process() {
    let (held, mut client) = Held::running().await;
    let process = exec(&mut client, "endless").await;
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let written = held.vm.written();
        assert!(written < 8 << 20, "the output piles up somewhere");
        if written == before && written > 0 {
            break;
        }
        before = written;
    }
    // Another process of the same client is not held up by that.
    let mut other = exec(&mut client, "cat").await;
    drop(other.take_input());
    assert_eq!(to_the_end(&mut other).await.2, 7);
    drop(process);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_hangs_its_process_up() {
    let (held, mut client) = Held::running().await;
    let process = exec(&mut client, "deaf").await;
    assert_eq!(client.inspect().await.unwrap().processes.len(), 1);
    drop(process);
    while !client.inspect().await.unwrap().processes.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(held.vm.signals(), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_let_go_goes_on_with_its_input_open() {
    let (held, mut client) = Held::running().await;
    let mut process = exec(&mut client, "cat").await;
    let (id, control) = (process.id(), process.control());
    let input = process.take_input().unwrap();
    assert!(input.send(Bytes::from_static(b"a")).await);
    control.detach().await.unwrap();
    drop((input, process));
    let mut other = held.client().await;
    let processes = other.inspect().await.unwrap().processes;
    assert!(processes.len() == 1 && processes[0].detached && processes[0].id == id);
    // It reads to nobody's end: only a signal ends it.
    control.signal(Signal::USR1).await.unwrap();
    while !other.inspect().await.unwrap().processes.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(held.vm.signals(), [10]);
    let error = control.signal(Signal::TERM).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_seen_and_can_be_stopped() {
    let held = Held::starting();
    let mut client = held.client().await;
    let told = client.inspect().await.unwrap();
    assert_eq!((told.state(), told.memory_mib), (State::Starting, 512));
    let start = proto::ExecStart {
        command: vec!["cat".into()],
        ..proto::ExecStart::default()
    };
    let error = client.exec(start).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotYet);
    assert!(error.advice().unwrap().contains("vm logs -f a"));
    let how = client.stop(Duration::from_secs(9)).await.unwrap();
    assert_eq!(how, How::GivenUp);
    assert_eq!(held.found(), []);
    held.outcome.await.unwrap().unwrap_err();
    let reported = held.reported.lock().unwrap().take().unwrap();
    assert!(
        reported
            .unwrap_err()
            .to_string()
            .contains("stopped before it was up")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_starter_that_goes_gives_the_start_up() {
    let mut held = Held::starting();
    drop(held.starter.take());
    let reported = Arc::clone(&held.reported);
    held.outcome.await.unwrap().unwrap_err();
    assert!(reported.lock().unwrap().take().unwrap().is_err());
    assert_eq!(held.folders.list().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_its_starter_does_not_take_over_is_stopped() {
    let (mut held, _client) = Held::up().await;
    drop(held.starter.take());
    assert_eq!(held.outcome.await.unwrap().unwrap(), Outcome::Stopped);
    assert_eq!(held.vm.graces(), [USUAL_GRACE]);
    assert_eq!(held.folders.list().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_it_is_answered_when_its_name_is_free() {
    let (held, mut client) = Held::running().await;
    let mut other = held.client().await;
    let grace = Duration::from_millis(1234);
    let (one, two) = tokio::join!(client.stop(grace), other.stop(grace));
    // Whoever comes so late that nobody is there to answer knows by that that it has ended.
    let both = [one, two].map(|how| how.map_err(|error| error.kind()));
    let ended = |how: &Result<How, ErrorKind>| {
        matches!(
            how,
            Ok(How::Gracefully | How::Already) | Err(ErrorKind::Ended)
        )
    };
    assert!(
        both.contains(&Ok(How::Gracefully)) && both.iter().all(ended),
        "{both:?}"
    );
    assert_eq!(held.found(), []);
    assert_eq!(held.vm.graces(), [grace]);
    assert_eq!(held.outcome.await.unwrap().unwrap(), Outcome::Stopped);
    let error = Client::connect(&held.folders, &name()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_is_asked_to_end_stops_its_vm_in_order() {
    let (mut held, _client) = Held::running().await;
    drop(held.stop.take());
    assert_eq!(held.outcome.await.unwrap().unwrap(), Outcome::Stopped);
    assert_eq!(held.vm.graces(), [USUAL_GRACE]);
    assert_eq!(held.folders.list().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_is_recorded_and_told() {
    let (held, mut client) = Held::running().await;
    let mut process = exec(&mut client, "deaf").await;
    held.vm.die("the guest's kernel panicked");
    let error = loop {
        match process.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Ended);
    assert_eq!(held.outcome.await.unwrap().unwrap(), Outcome::Died);
    let found = held.folders.list().unwrap();
    let [Found::Ended(record, _)] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(record.reason, "the guest's kernel panicked");
    assert!(record.bundle.is_some() && record.ended_ms >= record.started_ms);
    let error = Client::connect(&held.folders, &name()).await.unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_followed_to_the_end_of_the_vm() {
    let (held, mut client) = Held::running().await;
    let folder = held.folders.path().join("a");
    std::fs::write(logs::console(&folder), "booted\n").unwrap();
    let mut pieces = client
        .logs(&[proto::logs_request::Source::Console], true, None)
        .await
        .unwrap();
    let first = pieces.next().await.unwrap().unwrap();
    assert_eq!(first.data, "booted\n");
    let mut file = std::fs::File::options()
        .append(true)
        .open(logs::console(&folder))
        .unwrap();
    std::io::Write::write_all(&mut file, b"last words\n").unwrap();
    held.vm.die("over");
    let last = pieces.next().await.unwrap().unwrap();
    assert_eq!(last.data, "last words\n");
    assert!(pieces.next().await.unwrap().is_none());
}
