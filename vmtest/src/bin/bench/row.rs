//! A table of measurements: what, against what, the ratio, and the aim.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::pairs::{Pairs, Side, seconds};

/// Rows in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

/// One measurement.
#[derive(Default)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// Our median, with its unit.
    pub(crate) ours: String,
    /// The most memory that ours took, in bytes.
    pub(crate) peak: Option<u64>,
    /// The other side, and its median; or why there is none.
    pub(crate) against: String,
    /// Ours divided by theirs, where that means something.
    pub(crate) ratio: Option<f64>,
    /// What we aim at.
    pub(crate) aim: &'static str,
    /// Whether that was reached, where it is a number.
    pub(crate) met: Option<bool>,
    /// Every time that was taken, of both sides.
    pub(crate) samples: Option<Pairs>,
}

impl Row {
    /// A row of two sides.
    pub(crate) fn of(what: &str, name: &str, pairs: Pairs) -> Self {
        let (ours, theirs) = (pairs.ours.median(), pairs.theirs.median());
        Self {
            what: what.into(),
            ours: show(ours),
            peak: pairs.ours.peak(),
            against: format!("{name}: {}", show(theirs)),
            ratio: Some(seconds(ours) / seconds(theirs)),
            aim: "-",
            met: None,
            samples: Some(pairs),
        }
    }

    /// The row with an aim: a ratio of at most `limit`, which `aim` puts in words.
    pub(crate) fn aiming(mut self, aim: &'static str, limit: f64) -> Self {
        self.aim = aim;
        self.met = self.ratio.map(|ratio| ratio <= limit);
        self
    }

    /// A row that this machine cannot measure, and why.
    pub(crate) fn left_out(what: &str, name: &str, why: &str) -> Self {
        Self {
            what: what.into(),
            ours: "-".into(),
            against: format!("{name}: left out: {why}"),
            aim: "-",
            ..Self::default()
        }
    }
}

impl Table {
    /// Adds a row and says so, for benchmarks take long.
    pub(crate) fn add(&mut self, row: Row) {
        eprintln!("  {}: {} | {}", row.what, row.ours, row.against);
        self.rows.push(row);
    }

    /// Prints the rows below each other.
    pub(crate) fn print(&self) {
        println!(
            "{:<38} {:>19} {:>9} {:>7}  {:<31} against",
            "what", "ours", "peak", "ratio", "aim"
        );
        for row in &self.rows {
            let ratio = row.ratio.map_or("-".into(), |ratio| match ratio {
                0.1.. => format!("{ratio:.2}"),
                _ => format!("{ratio:.3}"),
            });
            let peak = row.peak.map_or("-".into(), mib);
            let met = match row.met {
                Some(true) => ", met",
                Some(false) => ", MISSED",
                None => "",
            };
            let aim = format!("{}{met}", row.aim);
            println!(
                "{:<38} {:>19} {peak:>9} {ratio:>7}  {aim:<31} {}",
                row.what, row.ours, row.against
            );
        }
    }

    /// Writes the rows as JSON, with what is known of the machine and the scale.
    pub(crate) fn write(&self, path: &Path, circumstances: &Value) -> Result<()> {
        let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
        let document = json!({ "circumstances": circumstances, "rows": rows });
        let mut file = std::fs::File::create(path)?;
        serde_json::to_writer_pretty(&mut file, &document)?;
        Ok(file.write_all(b"\n")?)
    }
}

impl Row {
    fn json(&self) -> Value {
        let list = |side: &Side| side.times.iter().map(|time| seconds(*time)).collect();
        let samples: Option<[Vec<f64>; 2]> = self
            .samples
            .as_ref()
            .map(|pairs| [list(&pairs.ours), list(&pairs.theirs)]);
        json!({
            "what": self.what, "ours": self.ours, "peak_bytes": self.peak,
            "against": self.against, "ratio": self.ratio, "aim": self.aim, "met": self.met,
            "seconds_ours": samples.as_ref().map(|[ours, _]| ours),
            "seconds_theirs": samples.as_ref().map(|[_, theirs]| theirs),
        })
    }
}

/// A time with a unit that leaves few digits.
pub(crate) fn show(time: Duration) -> String {
    match seconds(time) {
        long @ 1.0.. => format!("{long:.2} s"),
        short => format!("{:.1} ms", short * 1000.0),
    }
}

/// Bytes as MiB.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
