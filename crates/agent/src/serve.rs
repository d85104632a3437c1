//! The server: dials the host, and serves the bridge for as long as the machine runs.

mod connection;
mod console;
mod containers;
mod disk;
mod execute;
mod holders;
mod latch;
mod mounts;
mod news;
mod overlay;
mod power;
mod processes;
mod properties;
mod requests;
mod stacks;
mod workers;

use std::{
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use opengcs_bridge::{BRIDGE_PORT, ENTROPY_PORT, Failure, HResult, LOG_PORT};
use rustix::io::Errno;

use self::{
    containers::Containers, latch::Latch, mounts::Mounts, news::News, power::Power,
    processes::Processes, workers::Workers,
};
use crate::{
    log, sys,
    transport::{Dial, UnixFolder, Vsock},
};

pub(crate) use self::{console::input as relay_terminal_input, processes::winsize};

/// The outcome of a part of a request.
type Outcome<T> = Result<T, Failure>;

/// A failure that has no code of its own.
fn failed(message: impl Into<String>) -> Failure {
    Failure::new(HResult::FAIL, message)
}

/// A failure because a value in the request is not allowed.
fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(HResult::INVALID_ARGUMENT, message)
}

/// Something of the protocol that this agent does not do.
fn not_implemented(message: impl Into<String>) -> Failure {
    Failure::new(HResult::NOT_IMPLEMENTED, message)
}

/// How long to wait before a host that hung up is dialled again.
const REDIAL: Duration = Duration::from_millis(100);

/// How long a host that does not listen yet is dialled without a pause worth the name.
const EAGER: Duration = Duration::from_secs(3);

/// After how long without a host the kernel's log goes to the console, which is recorded all the same.
const LONELY: Duration = Duration::from_secs(10);

/// The stack of a thread that serves a request or relays bytes.
const SMALL_STACK: usize = 256 << 10;

/// All that the agent knows.
struct Agent {
    dialer: Arc<dyn Dial>,
    processes: Arc<Processes>,
    mounts: Mounts,
    containers: Containers,
    news: News,
    power: Power,
    /// Opens when every kernel module is loaded.
    modules: Latch,
    workers: Arc<Workers>,
    /// Requests that are served on threads of their own at this moment.
    busy: AtomicUsize,
}

/// How the server is run.
#[derive(Debug, Default)]
pub struct Options {
    /// For development: the host is a folder of Unix sockets named after their ports, and a
    /// shutdown ends the server instead of the machine. `None` is the real thing, over vsock.
    pub unix: Option<PathBuf>,
    /// The OCI runtime for containers; `None` takes the machine's `crun` or `runc`, if one is there.
    pub runtime: Option<PathBuf>,
}

/// Where the machine's agent keeps what it and its runtime know of containers.
const STATE: &str = "/run/gcs";

/// Serves for ever.
///
/// # Errors
/// When the server cannot even begin.
pub fn run(options: Options) -> io::Result<()> {
    let state = options.unix.clone().unwrap_or_else(|| STATE.into());
    let runtime = match (&options.unix, options.runtime) {
        // For development nothing of the host's own is taken unasked.
        (None, None) => containers::find_runtime(),
        (_, given) => given,
    };
    let containers = Containers::new(runtime, &state);
    let (dialer, power): (Arc<dyn Dial>, Power) = match options.unix {
        Some(folder) => (Arc::new(UnixFolder(folder)), Power::Process),
        None => (Arc::new(Vsock), Power::Machine),
    };
    if let Ok(level) = std::env::var(crate::init::LOG_VARIABLE) {
        log::set_level(&level);
    }
    std::panic::set_hook(Box::new(|panic| log::error(format_args!("{panic}"))));
    log::stage(format_args!("agent"));
    let processes = Processes::start()?;
    let agent = Arc::new(Agent {
        dialer: Arc::clone(&dialer),
        processes,
        mounts: Mounts::default(),
        containers,
        news: News::default(),
        power,
        modules: Latch::default(),
        workers: Arc::default(),
        busy: AtomicUsize::new(0),
    });
    if std::env::var_os(crate::init::MODULES_VARIABLE).is_some() {
        let agent = Arc::clone(&agent);
        spawn("modules", move || {
            // Nothing is ever written: only the end counts.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            agent.modules.open();
        })?;
    } else {
        agent.modules.open();
    }
    if let Ok(connection) = first_dial(&*dialer, ENTROPY_PORT) {
        spawn("entropy", move || take_entropy(connection))?;
    }
    let first = dialer.dial(LOG_PORT);
    let log_dialer = Arc::clone(&dialer);
    spawn("log", move || log::stream(&log_dialer, first))?;
    serve(&agent)
}

/// Dials once the machine has a way to the host at all; a refused port is one.
fn first_dial(dialer: &dyn Dial, port: u32) -> io::Result<OwnedFd> {
    let begin = Instant::now();
    let mut told = false;
    loop {
        let error = match dialer.dial(port) {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let no_device = [Errno::AFNOSUPPORT, Errno::NODEV, Errno::NETUNREACH]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
        if !no_device {
            return Err(error);
        }
        if !told && begin.elapsed() > EAGER {
            told = true;
            log::warning(format_args!("no vsock device yet: {error}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(SMALL_STACK)
        .spawn(body)
        .map(drop)
}

/// Reads what the host gives and mixes it into the kernel's pool.
fn take_entropy(connection: OwnedFd) {
    use std::io::{Read as _, Write as _};
    let mut seed = Vec::with_capacity(512);
    let limited = std::fs::File::from(connection)
        .take(512)
        .read_to_end(&mut seed);
    if seed.is_empty() {
        log::debug(format_args!("no entropy from the host: {limited:?}"));
        return;
    }
    let mixed = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/urandom")
        .and_then(|mut random| {
            sys::add_entropy(&random, &seed).or_else(|_| random.write_all(&seed))
        });
    match mixed {
        Ok(()) => log::debug(format_args!(
            "{} bytes of entropy from the host",
            seed.len()
        )),
        Err(error) => log::info(format_args!("entropy from the host not taken: {error}")),
    }
}

/// Serves one bridge connection after another.
fn serve(agent: &Arc<Agent>) -> io::Result<()> {
    let begin = Instant::now();
    let mut refused = 0u32;
    let mut connections = 0;
    let mut told = false;
    loop {
        match agent.dialer.dial(BRIDGE_PORT) {
            Ok(connection) => {
                connections += 1;
                if connections == 1 {
                    log::stage(format_args!("bridge connected"));
                    if agent.power == Power::Machine {
                        spawn("kernel-log", crate::kernel_log::follow)?;
                    }
                } else {
                    log::info(format_args!("bridge connected again"));
                }
                refused = 0;
                connection::serve(agent, connection, connections);
                log::info(format_args!("bridge lost"));
                std::thread::sleep(REDIAL);
            }
            Err(error) => {
                if refused == 0 {
                    log::info(format_args!("dial bridge port {BRIDGE_PORT}: {error}"));
                }
                refused = refused.saturating_add(1);
                if connections == 0 && !told && begin.elapsed() > LONELY {
                    told = true;
                    log::stage(format_args!(
                        "no host answers: {error}; the kernel's log follows"
                    ));
                    if agent.power == Power::Machine {
                        crate::kernel_log::to_console();
                    }
                }
                let eager = connections == 0 && begin.elapsed() < EAGER;
                std::thread::sleep(if eager {
                    Duration::from_millis(5)
                } else {
                    REDIAL
                });
            }
        }
    }
}
