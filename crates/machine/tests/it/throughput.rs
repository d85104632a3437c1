//! Not a test: how fast bytes go over vsock, and at which cost, beside a virtio-serial port of the same machine.
//!
//! `OPENGCS_BENCH_MIB` and `OPENGCS_BENCH_ROUNDS` change how much goes and how often. On a busy machine the
//! processor's time says more than the rate: it does not count what others take.

use std::fs;
use std::time::Instant;

use opengcs_machine::{Machine, Port};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::guest::{Guest, accept};

const BUFFER: usize = 256 * 1024;

fn number(name: &str, default: usize) -> usize {
    let value = std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok());
    value.unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, to be run by hand"]
async fn throughput() {
    let bytes = number("OPENGCS_BENCH_MIB", 64) << 20;
    let rounds = number("OPENGCS_BENCH_ROUNDS", 5);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serial");
    let socket = format!(
        "socket,id=serial,path={},server=on,wait=off",
        path.display()
    );
    let mut guest = Guest::boot_with(|mut config| {
        let device = ["-device", "virtio-serial-pci"];
        let port = ["-device", "virtserialport,chardev=serial"];
        let words = [["-chardev", socket.as_str()], device, port];
        config.extra_arguments = words.concat().iter().map(Into::into).collect();
        config
    })
    .await;
    println!("{}", guest.machine.describe().chipset);
    let mut serial = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut listener = guest.machine.listen(Port(2000)).unwrap();
    let qemu = guest.machine.describe().process_id.unwrap();
    for chunk in [4096, 65536] {
        let mut legs = ["vsock", "serial", "vsock", "serial"].map(|_| Vec::new());
        for _ in 0..rounds {
            let order = format!("dial 2000 source {bytes} {chunk}");
            assert_eq!(guest.order(&order).await, "ok");
            let mut stream = accept(&guest.machine, &mut listener).await;
            let start = Cost::now(qemu);
            take(&mut stream, bytes).await;
            legs[0].push(start.until_now(qemu, bytes));

            let start = Cost::now(qemu);
            let order = format!("serial source {bytes} {chunk}");
            assert_eq!(guest.order(&order).await, "ok");
            take(&mut serial, bytes).await;
            legs[1].push(start.until_now(qemu, bytes));

            let order = format!("dial 2000 sink {chunk}");
            assert_eq!(guest.order(&order).await, "ok");
            let mut stream = accept(&guest.machine, &mut listener).await;
            let start = Cost::now(qemu);
            give(&mut stream, bytes).await;
            stream.shutdown().await.unwrap();
            confirmed(&mut stream, bytes).await;
            legs[2].push(start.until_now(qemu, bytes));

            let order = format!("serial sink {bytes} {chunk}");
            assert_eq!(guest.order(&order).await, "ok");
            let start = Cost::now(qemu);
            give(&mut serial, bytes).await;
            confirmed(&mut serial, bytes).await;
            legs[3].push(start.until_now(qemu, bytes));
        }
        let [to_host, serial_to_host, to_guest, serial_to_guest] = legs.map(|leg| median(&leg));
        for (way, ours, theirs) in [
            ("to the host", to_host, serial_to_host),
            ("to the guest", to_guest, serial_to_guest),
        ] {
            println!(
                "{way}, {chunk} bytes a call: {:.2}",
                theirs.wall / ours.wall
            );
            println!("    vsock         {ours}");
            println!("    virtio-serial {theirs}");
        }
    }
    guest.order("dial 2000 rtt 2000").await;
    let mut stream = accept(&guest.machine, &mut listener).await;
    let mut bytes = [0; 64];
    for _ in 0..2000 {
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    }
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    println!("64-byte round trip p50 p99: {} us", line.trim());
    guest.machine.terminate().await;
}

async fn take(from: &mut (impl AsyncRead + Unpin), mut left: usize) {
    let mut buffer = vec![0; BUFFER];
    while left > 0 {
        let count = from.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{left} bytes are missing");
        left -= count;
    }
}

async fn give(to: &mut (impl AsyncWrite + Unpin), bytes: usize) {
    let buffer = vec![0; BUFFER];
    for _ in 0..bytes / BUFFER {
        to.write_all(&buffer).await.unwrap();
    }
}

/// The guest tells how many bytes it got.
async fn confirmed(from: &mut (impl AsyncRead + Unpin), bytes: usize) {
    let expected = format!("{bytes}\n");
    let mut answer = vec![0; expected.len()];
    from.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, expected.as_bytes());
}

/// Microseconds, of the wall clock and of processors: for each MiB after [`until_now`](Cost::until_now).
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    /// The guest's processor.
    guest: f64,
    /// QEMU's other threads.
    qemu: f64,
    /// This process.
    ours: f64,
}

impl Cost {
    fn now(qemu: u32) -> Self {
        let mut all = Self {
            wall: 0.0,
            guest: 0.0,
            qemu: 0.0,
            ours: 0.0,
        };
        for (pid, own) in [(qemu, false), (std::process::id(), true)] {
            for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
                let path = task.unwrap().path();
                // A thread may end meanwhile.
                let read = |name| fs::read_to_string(path.join(name)).unwrap_or_default();
                let ran: f64 = read("schedstat")
                    .split(' ')
                    .next()
                    .and_then(|nanoseconds| nanoseconds.parse().ok())
                    .unwrap_or(0.0);
                let sum = match (own, read("comm").starts_with("CPU")) {
                    (true, _) => &mut all.ours,
                    (false, true) => &mut all.guest,
                    (false, false) => &mut all.qemu,
                };
                *sum += ran / 1000.0;
            }
        }
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        all.wall = START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e6;
        all
    }

    fn until_now(self, qemu: u32, bytes: usize) -> Self {
        let now = Self::now(qemu);
        let per = |now: f64, then: f64| (now - then) / (bytes >> 20) as f64;
        Self {
            wall: per(now.wall, self.wall),
            guest: per(now.guest, self.guest),
            qemu: per(now.qemu, self.qemu),
            ours: per(now.ours, self.ours),
        }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:5.0} MiB/s; us of processor for each MiB: guest {:5.0}, qemu {:5.0}, ours {:5.0}",
            1e6 / self.wall,
            self.guest,
            self.qemu,
            self.ours
        )
    }
}

/// Each number's own median.
fn median(values: &[Cost]) -> Cost {
    let middle = |number: fn(&Cost) -> f64| {
        let mut numbers: Vec<f64> = values.iter().map(number).collect();
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 2]
    };
    Cost {
        wall: middle(|cost| cost.wall),
        guest: middle(|cost| cost.guest),
        qemu: middle(|cost| cost.qemu),
        ours: middle(|cost| cost.ours),
    }
}
