//! A table of measurements: what, against what, the ratio, and the aim.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Rows in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

/// One measurement.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// Our median, with its unit.
    pub(crate) ours: String,
    /// The other side, and its median.
    pub(crate) against: String,
    /// Ours divided by theirs, where that means something.
    pub(crate) ratio: Option<f64>,
    /// What we aim at.
    pub(crate) aim: &'static str,
}

impl Table {
    /// Adds a row and says so, for benchmarks take long.
    pub(crate) fn add(&mut self, row: Row) {
        eprintln!("  {}: {}", row.what, row.ours);
        self.rows.push(row);
    }

    /// Prints the rows below each other.
    pub(crate) fn print(&self) {
        println!(
            "{:<34} {:>22} {:>7}  {:<16} against",
            "what", "ours", "ratio", "aim"
        );
        for row in &self.rows {
            let ratio = row.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
            let Row {
                what,
                ours,
                against,
                aim,
                ..
            } = row;
            println!("{what:<34} {ours:>22} {ratio:>7}  {aim:<16} {against}");
        }
    }

    /// Writes the rows as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                serde_json::json!({
                    "what": row.what, "ours": row.ours, "against": row.against,
                    "ratio": row.ratio, "aim": row.aim,
                })
            })
            .collect();
        let mut file = std::fs::File::create(path)?;
        serde_json::to_writer_pretty(&mut file, &rows)?;
        Ok(file.write_all(b"\n")?)
    }
}

/// Runs both sides in turn and returns the median of each.
pub(crate) fn alternate(
    pairs: u32,
    mut ours: impl FnMut() -> Result<()>,
    mut theirs: impl FnMut() -> Result<()>,
) -> Result<(Duration, Duration)> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for _ in 0..pairs.max(1) {
        left.push(timed(&mut ours)?);
        right.push(timed(&mut theirs)?);
    }
    Ok((quantile(&mut left, 50), quantile(&mut right, 50)))
}

fn timed(side: &mut impl FnMut() -> Result<()>) -> Result<Duration> {
    let started = Instant::now();
    side()?;
    Ok(started.elapsed())
}

/// The value below which `percent` of the others lie.
pub(crate) fn quantile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() - 1) * percent / 100]
}

/// Ours divided by theirs.
pub(crate) fn ratio(ours: Duration, theirs: Duration) -> Option<f64> {
    Some(ours.as_secs_f64() / theirs.as_secs_f64())
}
