//! What the double has been told, what it has been asked, and how many handles are open.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What an operation comes to.
pub(crate) struct Outcome {
    pub(crate) result: i32,
    pub(crate) document: Option<String>,
    pub(crate) never: bool,
    /// Before then it is not known.
    pub(crate) at: Instant,
}

/// An operation's handle points at one.
#[derive(Default)]
pub(crate) struct Operation {
    pub(crate) outcome: Mutex<Option<Outcome>>,
    pub(crate) told: Condvar,
}

#[derive(Default)]
pub(crate) struct Double {
    script: Value,
    record: Vec<Value>,
    pub(crate) operations: i64,
    pub(crate) systems: i64,
    /// A callback as a number, and its context.
    pub(crate) callback: Option<(usize, usize)>,
    pub(crate) pipe: Option<String>,
}

static DOUBLE: Mutex<Option<Double>> = Mutex::new(None);

/// The double, under its lock: nothing may call out while it is held.
pub(crate) fn double<T>(act: impl FnOnce(&mut Double) -> T) -> T {
    let mut double: MutexGuard<'_, _> = DOUBLE.lock().unwrap();
    act(double.get_or_insert_with(Double::default))
}

impl Double {
    pub(crate) fn set(&mut self, script: &str) {
        self.script = serde_json::from_str(script).unwrap();
    }

    pub(crate) fn note(&mut self, call: &str, texts: &[Option<String>]) {
        self.record.push(serde_json::json!([call, texts]));
    }

    /// The record so far, and the handles that are open.
    pub(crate) fn report(&self) -> String {
        serde_json::json!({
            "calls": self.record,
            "operations": self.operations,
            "systems": self.systems,
            "callback": self.callback.is_some(),
        })
        .to_string()
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.script[name].as_str().map(str::to_owned)
    }

    /// The code that the call itself gives.
    pub(crate) fn begin(&self, call: &str) -> i32 {
        code(&self.script[call]["begin"])
    }

    pub(crate) fn exit(&self, call: &str) -> Option<String> {
        self.script[call]["exit"].as_str().map(str::to_owned)
    }

    pub(crate) fn outcome(&self, call: &str, usual: Option<String>) -> Outcome {
        let told = &self.script[call];
        Outcome {
            result: code(&told["result"]),
            document: told["document"].as_str().map(str::to_owned).or(usual),
            never: told["never"] == true,
            at: Instant::now() + Duration::from_millis(told["delay"].as_u64().unwrap_or(0)),
        }
    }
}

/// A code like `"0x80370105"`; none is success.
fn code(value: &Value) -> i32 {
    let Some(text) = value.as_str() else { return 0 };
    let digits = text.strip_prefix("0x").unwrap();
    u32::from_str_radix(digits, 16).unwrap().cast_signed()
}

impl Operation {
    pub(crate) fn settle(&self, outcome: Outcome) {
        *self.outcome.lock().unwrap() = Some(outcome);
        self.told.notify_all();
    }

    /// What it came to, or nothing when that takes longer.
    pub(crate) fn wait(&self, milliseconds: u32) -> Option<(i32, Option<String>)> {
        let end = Instant::now() + Duration::from_millis(milliseconds.into());
        let mut outcome = self.outcome.lock().unwrap();
        loop {
            let now = Instant::now();
            let mut next = end;
            if let Some(found) = outcome.as_ref().filter(|found| !found.never) {
                if found.at <= now {
                    return Some((found.result, found.document.clone()));
                }
                next = found.at.min(end);
            }
            let left = next.checked_duration_since(now)?;
            if left.is_zero() {
                return None;
            }
            outcome = self.told.wait_timeout(outcome, left).unwrap().0;
        }
    }
}
