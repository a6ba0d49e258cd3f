//! A line on the terminal while a load runs; nothing where there is no terminal.

use std::io::{IsTerminal, Write};

use crate::bench::client::Progress;

/// The line.
pub struct Line {
    is_terminal: bool,
    is_shown: bool,
}

impl Line {
    /// On standard error, if that is a terminal.
    pub fn new() -> Line {
        Line { is_terminal: std::io::stderr().is_terminal(), is_shown: false }
    }

    /// Shows the last interval.
    pub fn show(&mut self, progress: &Progress<'_>) {
        if self.is_terminal {
            self.is_shown = true;
            // A terminal that is gone is no reason to stop measuring.
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", text(progress));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn text(progress: &Progress<'_>) -> String {
    let mut text = format!("{:>4} s", progress.elapsed.as_secs());
    if progress.is_warm_up {
        text += " warming up";
    }
    for (name, row) in progress.rows {
        let seconds = row.duration.as_secs_f64().max(1e-9);
        let [p50, p99, _, max] = row.latency_ns.map(|ns| ns as f64 / 1e6);
        let (requests, mib) =
            (row.counts.requests as f64 / seconds, row.counts.bytes as f64 / seconds / (1 << 20) as f64);
        text += &format!("  {name} {requests:.0}/s {mib:.0} MiB/s p50 {p50:.2} p99 {p99:.2} max {max:.1} ms");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::recorder::{Counts, Row};
    use std::time::Duration;

    #[test]
    fn the_line_tells_rate_and_latency_of_the_interval() {
        let row = Row {
            start: Duration::from_secs(3),
            duration: Duration::from_millis(500),
            counts: Counts { requests: 1000, bytes: 8 << 20, records: 0 },
            latency_ns: [1_000_000, 2_000_000, 3_000_000, 4_000_000],
        };
        let rows = [("produce", row)];
        let progress = Progress { is_warm_up: true, elapsed: Duration::from_secs(3), rows: &rows };
        let expected = "   3 s warming up  produce 2000/s 16 MiB/s p50 1.00 p99 2.00 max 4.0 ms";
        assert_eq!(text(&progress), expected);
    }
}
