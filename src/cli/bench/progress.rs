//! How a run goes, on the terminal.

use std::cell::Cell;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::experiment::design::about::{About, LoadKept, RunEnd};
use crate::experiment::run::{Progress, RunProgress};

/// Seconds between the lines where there is no terminal.
const LINE_S: f64 = 10.0;

/// What is drawn.
enum Event {
    /// A run of that title and length.
    Begins(String, Duration),
    /// So far.
    Figures(Duration, String),
    /// A line that stays.
    Say(String),
}

/// A bar with live figures; without a terminal, a line now and then. It is drawn by a thread of its
/// own, for a terminal may stop taking text, and the one that sends calls must not wait for it.
pub(super) struct Bar {
    tell: Option<Sender<Event>>,
    drawing: Option<JoinHandle<()>>,
    /// The figures of the tick before, for the rate.
    before: Cell<RunProgress>,
    rate: Cell<f64>,
}

impl Bar {
    pub(super) fn new() -> Self {
        let (tell, told) = channel();
        let drawing = std::thread::spawn(move || draw(&told));
        Self {
            tell: Some(tell),
            drawing: Some(drawing),
            before: Cell::default(),
            rate: Cell::new(0.0),
        }
    }

    fn tell(&self, event: Event) {
        if let Some(tell) = &self.tell {
            // Without its drawing a run is still a run.
            let _ = tell.send(event);
        }
    }

    fn say(&self, line: impl Into<String>) {
        self.tell(Event::Say(line.into()));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.tell = None;
        if let Some(drawing) = self.drawing.take() {
            let _ = drawing.join();
        }
    }
}

/// Writes a line where errors go, if anybody still reads there.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn draw(events: &Receiver<Event>) {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{prefix}\n  [{bar:30}] {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let mut told_s = 0.0;
    for event in events {
        match event {
            Event::Begins(title, duration) => {
                told_s = 0.0;
                bar.reset();
                bar.set_length(duration.as_millis() as u64);
                if bar.is_hidden() {
                    line(&title);
                }
                bar.set_prefix(title);
            }
            Event::Figures(elapsed, figures) => {
                let seconds = elapsed.as_secs_f64();
                if bar.is_hidden() && seconds - told_s >= LINE_S {
                    told_s = seconds;
                    line(&format!("  {figures}"));
                }
                bar.set_position(elapsed.as_millis() as u64);
                bar.set_message(figures);
            }
            Event::Say(text) if bar.is_hidden() => line(&text),
            Event::Say(text) => bar.println(text),
        }
    }
    bar.finish_and_clear();
}

/// The share of `part` in `whole` in per cent.
fn share(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

impl Progress for Bar {
    fn begins(&self, title: &str, duration: Duration) {
        self.before.set(RunProgress::default());
        self.rate.set(0.0);
        self.tell(Event::Begins(title.to_owned(), duration));
    }

    fn goes_on(&self, live: &RunProgress) {
        let before = self.before.replace(*live);
        let passed = live.elapsed_s - before.elapsed_s;
        if passed > 0.0 {
            // Smoothed over about two seconds.
            let now = (live.ended - before.ended) as f64 / passed;
            let weight = (passed / 2.0).min(1.0);
            self.rate.set(self.rate.get() * (1.0 - weight) + now * weight);
        }
        let figures = format!(
            "{:.0} s  {:.1} calls/s  {:.1} % in time  {} failed  {} under way",
            live.elapsed_s,
            self.rate.get(),
            share(live.in_time, live.ended),
            live.failed,
            live.in_flight
        );
        self.tell(Event::Figures(Duration::from_secs_f64(live.elapsed_s), figures));
    }

    fn ended(&self, about: &About, results: &Path) {
        let how = if about.end == RunEnd::Complete { "" } else { " (interrupted)" };
        self.say(format!("{}{how}", results.display()));
        amiss(&about.kept).into_iter().for_each(|line| self.say(line));
    }
}

/// What was not as planned, a line each.
fn amiss(kept: &LoadKept) -> Vec<String> {
    let mut lines = Vec::new();
    if kept.disturbed() {
        let (in_time, [half, most, _]) = (share(kept.sent_in_time, kept.planned), kept.late_s);
        lines.push(format!(
            "  disturbed: this machine did not keep the rate well: {in_time:.1} % of {} calls were \
             sent before the end; half were {half:.4} s late or more, one in a hundred {most:.4} s",
            kept.planned,
        ));
    }
    if kept.not_sent > 0 {
        lines.push(format!("  {} calls were not sent: too many were under way", kept.not_sent));
    }
    if kept.training_failed > 0 {
        lines.push(format!(
            "  {} of {} entries did not reach the learners",
            kept.training_failed,
            kept.trained + kept.training_failed
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_amiss_is_said_and_nothing_else() {
        let well = LoadKept { planned: 100, sent_in_time: 100, ..LoadKept::default() };
        assert!(amiss(&well).is_empty());
        let late = LoadKept { late_s: [0.001, 0.017, 0.05], ..well };
        let [line] = &*amiss(&late) else { panic!("one line") };
        assert!(line.contains("disturbed") && line.contains("0.0170 s"), "{line}");
        let amiss = amiss(&LoadKept { sent_in_time: 90, not_sent: 10, training_failed: 3, ..well });
        for (line, part) in amiss.iter().zip(["disturbed", "10 calls", "3 of 3 entries"]) {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(amiss.len(), 3);
    }
}
