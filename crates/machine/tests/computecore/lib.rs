//! A double of Hyper-V's `computecore.dll`: it records what it is asked, and answers what it is told to.
//!
//! A test loads a copy of its own, so that no two tests share one. A script is a JSON object; under the name
//! of a call (`create`, `start`, `modify`, …) stands how that call goes:
//!
//! - `begin`: the code that the call itself gives; `result`: the code that its operation ends with;
//! - `document`: its result document; `delay`: after how many milliseconds it ends; `never`: it does not end;
//! - `exit`: while the call runs, the machine ends, and this is the document that says why.
//!
//! `console` is what the machine writes to its serial port when it starts.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::undocumented_unsafe_blocks,
    missing_docs,
    reason = "a double has the interface of what it doubles; only tests load it"
)]

#[cfg(windows)]
mod calls;
#[cfg(windows)]
mod script;
