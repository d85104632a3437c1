//! The schema's messages, and the two ends of the service, as `build.rs` makes them.

#![allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "made by a program; the schema has the words for people"
)]

tonic::include_proto!("opengcs.monitor.v1");
