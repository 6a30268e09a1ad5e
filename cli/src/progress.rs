//! How far a run has got, for someone at a terminal.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::count::count;
use crate::output::Output;

/// Tells whether somebody at a terminal waits for the run, and does not see what it writes.
pub(crate) fn is_watched(output: &Output) -> bool {
    io::stderr().is_terminal() && !output.is_terminal()
}

/// A bar on standard error, where nothing else is on the terminal that it would come between.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    rows: u64,
}

impl Progress {
    /// Begins at zero of `bytes`; without a length there is no time left to tell.
    pub(crate) fn begin(bytes: Option<u64>, is_drawn: bool) -> Self {
        if !is_drawn {
            return Self { bar: ProgressBar::hidden(), rows: 0 };
        }
        let bar = ProgressBar::with_draw_target(bytes, ProgressDrawTarget::stderr());
        let template = if bytes.is_some() { WITH_TIME_LEFT } else { WITHOUT };
        // A test reads the templates; and a bar without its style would do as well.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, rows: 0 }
    }

    /// Counts what was written.
    pub(crate) fn add(&mut self, bytes: usize, rows: u64) {
        self.rows = self.rows.saturating_add(rows);
        let rate = per_second(self.rows, self.bar.elapsed());
        self.bar.set_message(format!("{}/s", count(rate, "row")));
        self.bar.inc(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// How many rows were written.
    pub(crate) const fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes the bar off the screen.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn per_second(count: u64, time: Duration) -> u64 {
    let per_mille = u128::from(count).saturating_mul(1000);
    per_mille.checked_div(time.as_millis()).and_then(|rate| u64::try_from(rate).ok()).unwrap_or(count)
}

const WITH_TIME_LEFT: &str = "{wide_bar} {percent:>3} %  {msg}  {eta} left";
const WITHOUT: &str = "{spinner} {bytes} {msg}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_ones() {
        for template in [WITH_TIME_LEFT, WITHOUT] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn rows_per_second() {
        assert_eq!(per_second(500, Duration::from_millis(250)), 2000);
        assert_eq!(per_second(500, Duration::ZERO), 500);
    }
}
