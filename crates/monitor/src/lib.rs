//! Utility VMs that outlive the command that started them.
//!
//! A *monitor* is a process of its own that holds one VM under a name. It serves gRPC on a Unix socket that
//! only its user can reach; the schema is `proto/opengcs/monitor/v1/monitor.proto`.
//!
//! ```text
//!   opengcs vm start ──► launch ──► monitor (setsid) ── hold ──► UtilityVm ──► QEMU
//!                                      │ claim
//!                                      ▼
//!   opengcs exec … ──► Client ──► $XDG_RUNTIME_DIR/opengcs/NAME/monitor.sock
//! ```
//!
//! What it refuses: a name that is held, and names that are more than names; folders that others can
//! enter; and everything on other systems than Linux, in one line.
//!
//! ```no_run
//! use opengcs::Environment;
//! use opengcs_monitor::{Client, Event, Folders, proto};
//!
//! # async fn example() -> opengcs_monitor::Result<()> {
//! let folders = Folders::of(&Environment::process())?;
//! let mut client = Client::connect(&folders, &"build".parse()?).await?;
//! let start = proto::ExecStart {
//!     command: vec!["uname".into(), "-r".into()],
//!     ..Default::default()
//! };
//! let mut process = client.exec(start).await?;
//! while let Event::Stdout(text) = process.next().await? {
//!     println!("{}", String::from_utf8_lossy(&text));
//! }
//! # Ok(()) }
//! ```

mod client;
mod error;
mod folder;
mod launch;
mod log;
mod logs;
mod monitor;
mod name;
pub mod proto;
mod serve;
mod sys;
pub mod vm;

pub use client::{Client, Event, Exec, ExecControl, ExecInput, Looked, Pieces};
pub use error::{Error, ErrorKind, Result};
pub use folder::{Claim, Ended, Folders, Found, now_ms};
pub use launch::{Starter, launch, order, report};
pub use log::begin as begin_log;
pub use logs::{Follow, as_sections};
pub use monitor::{Outcome, Surroundings, begin_session, hold};
pub use name::{LONGEST_NAME, Name};
