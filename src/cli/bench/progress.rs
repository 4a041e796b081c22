//! How a run goes, on the terminal.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::bench::about::{About, End};
use crate::experiment::{Live, Progress};

/// Seconds between the lines where there is no terminal.
const LINE_S: f64 = 10.0;

/// A bar with live figures; without a terminal, a line now and then.
pub(super) struct Bar {
    bar: ProgressBar,
    /// The figures of the tick before, for the rate.
    before: Cell<Live>,
    rate: Cell<f64>,
    told_at: Cell<f64>,
}

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = "{prefix}\n  [{bar:30}] {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, before: Cell::default(), rate: Cell::new(0.0), told_at: Cell::new(0.0) }
    }

    fn say(&self, line: &str) {
        if self.bar.is_hidden() { eprintln!("{line}") } else { self.bar.println(line) }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The share of `part` in `whole` in per cent.
fn share(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

impl Progress for Bar {
    fn begins(&self, number: usize, of: usize, what: &str, duration: Duration) {
        self.bar.reset();
        self.bar.set_length(duration.as_millis() as u64);
        let title = format!("{number}/{of} {what}");
        if self.bar.is_hidden() {
            eprintln!("{title}");
        }
        self.bar.set_prefix(title);
        self.before.set(Live::default());
        self.told_at.set(0.0);
    }

    fn goes_on(&self, live: &Live) {
        let before = self.before.replace(*live);
        let passed = live.elapsed_s - before.elapsed_s;
        if passed > 0.0 {
            // Smoothed over about two seconds.
            let now = (live.ended - before.ended) as f64 / passed;
            let weight = (passed / 2.0).min(1.0);
            self.rate.set(self.rate.get() * (1.0 - weight) + now * weight);
        }
        let figures = format!(
            "{:.0} s  {:.1} calls/s  {:.1} % in time  {} errors  {} under way",
            live.elapsed_s,
            self.rate.get(),
            share(live.in_time, live.ended),
            live.errors,
            live.in_flight
        );
        if self.bar.is_hidden() && live.elapsed_s - self.told_at.get() >= LINE_S {
            self.told_at.set(live.elapsed_s);
            eprintln!("  {figures}");
        }
        self.bar.set_position((live.elapsed_s * 1000.0) as u64);
        self.bar.set_message(figures);
    }

    fn ended(&self, about: &About, results: &Path) {
        let kept = &about.kept;
        let how = if about.end == End::Complete { "" } else { " (interrupted)" };
        self.say(&format!("{}{how}", results.display()));
        let in_time = share(kept.sent_in_time, kept.planned);
        if in_time < 99.0 {
            self.say(&format!(
                "  this machine did not keep the rate: of {} calls {in_time:.1} % were sent before \
                 the end, half of them {:.3} s late or more",
                kept.planned, kept.late_s[0]
            ));
        }
        if kept.training_failed > 0 {
            self.say(&format!(
                "  {} of {} entries did not reach the learners",
                kept.training_failed,
                kept.trained + kept.training_failed
            ));
        }
    }
}
