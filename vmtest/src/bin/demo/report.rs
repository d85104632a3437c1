//! What the demonstration prints: numbered steps, results, and the time of each.

use std::time::Instant;

/// Counts steps and times results.
pub(crate) struct Report {
    started: Instant,
    last: Instant,
    steps: u32,
}

impl Report {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            last: now,
            steps: 0,
        }
    }

    /// Announces the next step.
    pub(crate) fn step(&mut self, what: &str) {
        self.steps += 1;
        println!("\n{}. {what}", self.steps);
        self.last = Instant::now();
    }

    /// Prints a result and the time since the one before it.
    pub(crate) fn result(&mut self, what: &str) {
        println!("   {what:<78} {:>8.2} s", self.last.elapsed().as_secs_f64());
        self.last = Instant::now();
    }

    /// Prints something beside the results.
    pub(crate) fn note(&self, what: &str) {
        for line in what.lines() {
            println!("     {line}");
        }
    }

    /// Prints the time of it all.
    pub(crate) fn finish(self) {
        println!(
            "\nall of it worked, in {:.1} s",
            self.started.elapsed().as_secs_f64()
        );
    }
}

/// Bytes as people read them.
pub(crate) fn mib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let mib = bytes as f64 / f64::from(1 << 20);
    format!("{mib:.1} MiB")
}
