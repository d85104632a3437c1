//! The GCS bridge protocol: messages, frames, and sessions of both ends.
//!
//! A *bridge* is one stream connection between a container host and the agent in its utility
//! VM. Both ends exchange frames of a 16-byte header and a JSON body:
//!
//! ```text
//!   host::Session ── request  (type 0x1…, id n) ──►  guest::Session
//!        ▲                                                 │
//!        ├───────── response (type 0x2…, id n) ◄───────────┤
//!        └───────── notification (0x3…, id 0) ◄────────────┘
//! ```
//!
//! Nothing here opens a socket, starts a thread or reads a clock: bytes go in through
//! [`frame::Decoder`], sessions decide, and bytes come out.
//!
//! What it refuses: frames under 16 or over 65,536 bytes, responses to nothing or of the wrong
//! type, requests before the protocol version is negotiated, and bodies that are not the JSON of
//! their type. Unknown fields, unknown message types and absent zero values are no errors.
//!
//! ```
//! use opengcs_bridge::{frame::Decoder, guest, host, message::Request};
//!
//! let mut host = host::Session::new();
//! let mut guest = guest::Session::new();
//! let (_, bytes) = host.request(&Request::negotiate(), "first")?;
//!
//! let frame = Decoder::new().decode(&mut bytes.as_slice())?.expect("one whole frame");
//! let guest::Incoming::Reply(reply) = guest.receive(&frame) else { panic!("answered at once") };
//!
//! let frame = Decoder::new().decode(&mut reply.as_slice())?.expect("one whole frame");
//! let host::Incoming::Response { token, response, .. } = host.receive(&frame)? else { panic!() };
//! assert_eq!(token, Some("first"));
//! assert!(response.is_ok() && host.is_negotiated());
//! # Ok::<(), opengcs_bridge::Error>(())
//! ```
#![forbid(unsafe_code)]
#![warn(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a test may panic"
    )
)]

mod error;
pub mod frame;
pub mod guest;
pub mod host;
mod hresult;
pub mod message;
mod message_type;
pub mod scsi;

pub use error::{Error, ErrorKind, Failure, Result};
pub use hresult::HResult;
pub use message_type::{Kind, MessageType};

/// The id of the utility VM itself where a container's id is asked for.
pub const UTILITY_VM_ID: &str = "00000000-0000-0000-0000-000000000000";

/// The GUID that stands for "no activity".
pub const NO_ACTIVITY: &str = "00000000-0000-0000-0000-000000000000";

/// The one protocol version that both ends speak.
pub const PROTOCOL_VERSION: u32 = 4;

/// The port on the host that the guest dials to seed its entropy pool.
pub const ENTROPY_PORT: u32 = 1;

/// The port on the host that the guest dials to stream its log.
pub const LOG_PORT: u32 = 109;

/// The port on the host that the guest dials for the bridge.
pub const BRIDGE_PORT: u32 = 0x4000_0000;

/// The first port that a host hands out for the stdio of processes.
pub const FIRST_STDIO_PORT: u32 = 0x4000_0001;

/// The `TimeoutInMs` that means "for ever".
pub const WAIT_FOREVER: u32 = u32::MAX;
