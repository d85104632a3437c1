//! Futures that are dropped, wherever they stand: host and guest agree afterwards, and nothing is left.
//!
//! Each operation is polled once and dropped, then twice and dropped, and so on until it is done before that:
//! so it is given up at each of the places where it waits.

use std::pin::pin;
use std::task::Poll;

use super::*;

/// More than any of these takes; an operation that never ends must not end the test's memory.
const MOST_POLLS: usize = 1000;

/// The outcome, unless it takes more than `polls`: then it is dropped.
async fn polled<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Waits for what goes on behind the dropped future; says what is still there when that does not end.
async fn comes_true(what: &str, polls: usize, is_true: impl Fn() -> bool) {
    let wait = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    assert!(waited.is_ok(), "dropped after {polls} polls: {what}");
}

/// Nobody has the machine, and nothing of its VM is on the disk.
async fn gone(bench: &Bench, machine: &Arc<Fake>, polls: usize) {
    comes_true("the machine is held", polls, || {
        Arc::strong_count(machine) == 1
    })
    .await;
    comes_true("its folder is left", polls, || bench.runtime_files() == 0).await;
    comes_true("a port is left", polls, || {
        machine.ports.lock().unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_start_leaves_no_machine_and_no_folder() {
    let bench = Bench::new();
    let mut config = bench.config(&["lcow.timeout=20"]);
    let disk = crate::MappedVirtualDisk::new(bench.disk("a.img"), "/mnt/a");
    config.mapped_virtual_disks.push(disk);
    let mut given_up = 0;
    for polls in 0..MOST_POLLS {
        let machine = Fake::new(Guest::Good);
        let outcome = polled(bench.start_with(&machine, config.clone()), polls).await;
        if let Some(vm) = outcome {
            vm.unwrap().stop().await.unwrap();
            gone(&bench, &machine, polls).await;
            break;
        }
        given_up += 1;
        gone(&bench, &machine, polls).await;
        assert!(polls == 0 || machine.state().is_end(), "{polls} polls");
    }
    // Never polled; the guest's dial; the disk: at least.
    assert!((3..MOST_POLLS).contains(&given_up), "{given_up}");
}

#[tokio::test]
async fn a_process_that_is_given_up_leaves_no_port_and_no_process() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Foreign);
    let vm = bench.start(&machine).await.unwrap();
    let ports = || machine.ports.lock().unwrap().len();
    vm.output("exit 0", 0).await.unwrap();
    let before = ports();
    for polls in 0..MOST_POLLS {
        let started = polled(vm.run_process("slow"), polls).await;
        let done = started.is_some();
        // Dropped with its streams, if it has come so far.
        drop(started);
        comes_true("a port is listened at", polls, || ports() == before).await;
        comes_true("a process runs on", polls, || {
            let processes = machine.processes.lock().unwrap();
            processes.values().all(|exit| exit.borrow().is_some())
        })
        .await;
        if done {
            break;
        }
        assert!(polls + 1 < MOST_POLLS);
    }
    assert!(vm.output("exit 0", 0).await.unwrap().status.success());
    vm.stop().await.unwrap();
    drop(vm);
    gone(&bench, &machine, 0).await;
}

#[tokio::test]
async fn a_change_of_the_disks_is_made_whole_or_not_at_all() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::Good);
    let vm = bench.start(&machine).await.unwrap();
    let disk = bench.disk("a.img");
    let both = || (vm.disks().len(), machine.disks.lock().unwrap().len());
    for polls in 0..MOST_POLLS {
        let added = polled(vm.hot_add_vhd(&disk, "/mnt/a", true, true), polls).await;
        // What was never begun is not there, and can be begun.
        let wanted = usize::from(polls > 0);
        comes_true("not added on both sides", polls, || {
            both() == (wanted, wanted)
        })
        .await;
        if polls == 0 {
            vm.hot_add_vhd(&disk, "/mnt/a", true, true).await.unwrap();
        }
        let removed = polled(vm.hot_remove_vhd(&disk), polls).await;
        comes_true("not removed on both sides", polls, || {
            both() == (1 - wanted, 1 - wanted)
        })
        .await;
        if polls == 0 {
            vm.hot_remove_vhd(&disk).await.unwrap();
        }
        if let (Some(added), Some(removed)) = (added, removed) {
            added.unwrap();
            removed.unwrap();
            break;
        }
        assert!(polls + 1 < MOST_POLLS);
    }
    let changes = machine.changes.lock().unwrap().clone();
    let count = |word: &str| changes.iter().filter(|c| c.starts_with(word)).count();
    assert_eq!(count("Add MappedVirtualDisk"), count("Remove SCSIDevice"));
}

#[tokio::test]
async fn a_stop_that_is_given_up_can_be_asked_for_again() {
    let bench = Bench::new();
    for polls in 0..MOST_POLLS {
        let machine = Fake::new(Guest::Good);
        let vm = bench.start(&machine).await.unwrap();
        let stopped = polled(vm.stop(), polls).await;
        vm.stop().await.unwrap();
        assert!(machine.state().is_end());
        drop(vm);
        gone(&bench, &machine, polls).await;
        if stopped.is_some() {
            break;
        }
        assert!(polls + 1 < MOST_POLLS);
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_answers_no_more_is_given_up_within_the_timeout() {
    let bench = Bench::new();
    let machine = Fake::new(Guest::FallsSilent);
    let vm = bench.start(&machine).await.unwrap();
    let disk = bench.disk("a.img");
    let before = tokio::time::Instant::now();
    let error = vm.run_process("exit 0").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(
        error.report().contains("did not answer") && error.report().contains("20 s"),
        "{error:?}"
    );
    assert!(before.elapsed() <= Duration::from_secs(21));
    let ports = machine.ports.lock().unwrap().len();

    // The disk, then its unmounting, then its device: three questions that nobody answers.
    let error = vm
        .hot_add_vhd(&disk, "/mnt/a", true, true)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(before.elapsed() <= Duration::from_secs(20 * 4 + 1));
    assert!(vm.disks().is_empty() && machine.disks.lock().unwrap().is_empty());
    assert_eq!(machine.ports.lock().unwrap().len(), ports);

    let before = tokio::time::Instant::now();
    assert_eq!(vm.stop().await.unwrap(), Stopped::Killed);
    assert!(before.elapsed() <= Duration::from_secs(10));
    drop(vm);
    gone(&bench, &machine, 0).await;
}
