//! The lower end of the terminal during a run: a line for each running stage and one for the whole, drawn anew in place.

use super::{Style, because, duration, progress};
use crate::event::{Event, Totals};
use console::Term;
use pipe_stages::context::StageEvent;
use pipe_stages::text::visible;
use std::io;
use std::time::{Duration, Instant};

const REDRAW_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Live {
    /// Buffered, so that a picture appears at once.
    terminal: Term,
    /// What is drawn there now.
    drawn: Vec<String>,
    drawn_at: Option<Instant>,
    picture: Picture,
}

impl Live {
    pub(super) fn new() -> Self {
        Self {
            terminal: Term::buffered_stderr(),
            drawn: Vec::new(),
            drawn_at: None,
            picture: Picture::default(),
        }
    }

    /// Writes a line that stays above the picture, if there is one, and draws the picture when it is time.
    pub(super) fn show(&mut self, event: &Event, line: Option<&str>) -> io::Result<()> {
        self.picture.update(event, Instant::now());
        let due = self.drawn_at.is_none_or(|drawn_at| drawn_at.elapsed() >= REDRAW_EVERY);
        let ended = matches!(event, Event::Ended(_));
        if line.is_none() && !due && !ended {
            return Ok(());
        }
        self.clear()?;
        if let Some(line) = line {
            self.terminal.write_line(line)?;
        }
        if !ended {
            self.draw()?;
        }
        self.terminal.flush()
    }

    /// Clears what was drawn. In a terminal that has become narrower since, its lines take more rows now.
    fn clear(&mut self) -> io::Result<()> {
        let width = usize::from(self.terminal.size().1).max(1);
        let rows = |line: String| console::measure_text_width(&line).div_ceil(width).max(1);
        let rows: usize = self.drawn.drain(..).map(rows).sum();
        if rows > 0 {
            self.terminal.move_cursor_up(rows)?;
            self.terminal.clear_to_end_of_screen()?;
        }
        Ok(())
    }

    fn draw(&mut self) -> io::Result<()> {
        let (rows, width) = self.terminal.size();
        // The cursor stands below the last line.
        let lines = self.picture.lines(usize::from(rows).saturating_sub(1), Instant::now());
        for line in lines {
            let line = console::truncate_str(&visible(&line), usize::from(width), "…").into_owned();
            let painted = if super::color() { Style::Dim.paint(&line) } else { line.clone() };
            self.terminal.write_line(&painted)?;
            self.drawn.push(line);
        }
        self.drawn_at = Some(Instant::now());
        Ok(())
    }
}

/// What there is to draw.
#[derive(Default)]
struct Picture {
    /// In the order in which they started.
    running: Vec<Running>,
    stages: usize,
    ended: usize,
    totals: Totals,
    /// When the run may end, by what its stages took before.
    end: Option<Instant>,
}

struct Running {
    stage: String,
    since: Instant,
    expected: Option<Duration>,
    /// Why it runs, until it says how far it is.
    text: String,
    /// Done, of, and when that was told.
    progress: Option<(usize, usize, Instant)>,
}

impl Running {
    /// From how far it is; before that, from what it took in an earlier run.
    fn left(&self, now: Instant) -> Option<Duration> {
        let whole = match self.progress {
            Some((done, total, told)) if done > 0 && total >= done => {
                Some((told - self.since).mul_f64(total as f64 / done as f64))
            }
            _ => self.expected,
        };
        let left = whole?.saturating_sub(now - self.since);
        (left >= Duration::from_secs(1)).then_some(left)
    }

    fn line(&self, now: Instant) -> String {
        let Self { stage, text, .. } = self;
        let mut line = format!("{:>9} {stage}  {}", "running", duration(now - self.since));
        if let Some(left) = self.left(now) {
            line += &format!(", about {} left", rough(left));
        }
        if text.is_empty() { line } else { format!("{line}  {text}") }
    }
}

impl Picture {
    fn update(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Started { stages, .. } => self.stages = *stages,
            Event::Outlook { left } => self.end = Some(now + *left),
            Event::Running { stage, reasons, expected, .. } => self.running.push(Running {
                stage: stage.clone(),
                since: now,
                expected: *expected,
                text: because(reasons),
                progress: None,
            }),
            Event::Stage { stage, event: event @ StageEvent::Progress { done, total, .. } } => {
                if let Some(running) = self.running.iter_mut().find(|running| running.stage == *stage) {
                    running.text = progress(event).unwrap_or_default();
                    running.progress = Some((*done, *total, now));
                }
            }
            Event::Retrying { stage, .. } => self.remove(stage),
            Event::Cached { stage } => {
                self.totals.cached += 1;
                self.end(stage);
            }
            Event::Failed { stage, .. } => {
                self.totals.failed += 1;
                self.end(stage);
            }
            Event::Skipped { stage, .. } => {
                self.totals.skipped += 1;
                self.end(stage);
            }
            Event::Done { stage, .. } | Event::Interrupted { stage, .. } => self.end(stage),
            Event::WouldRun { .. }
            | Event::MightRun { .. }
            | Event::Stage { .. }
            | Event::Warning(_)
            | Event::Tick
            | Event::Ended(_) => {}
        }
    }

    fn remove(&mut self, stage: &str) {
        self.running.retain(|running| running.stage != stage);
    }

    fn end(&mut self, stage: &str) {
        self.ended += 1;
        self.remove(stage);
    }

    /// At most `room` lines, the last one about the whole run.
    fn lines(&self, room: usize, now: Instant) -> Vec<String> {
        if room == 0 || self.running.is_empty() {
            return Vec::new();
        }
        let mut lines: Vec<_> = self.running.iter().take(room - 1).map(|running| running.line(now)).collect();
        let mut parts = vec![
            format!("{} of {} stages", self.ended, self.stages),
            format!("{} running", self.running.len()),
        ];
        let Totals { cached, failed, skipped, .. } = self.totals;
        let counts = [(cached, "cached"), (failed, "FAILED"), (skipped, "skipped")];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        parts.extend(counts.map(|(count, what)| format!("{count} {what}")));
        let left = self.end.map(|end| end.saturating_duration_since(now));
        if let Some(left) = left.filter(|left| *left >= Duration::from_secs(1)) {
            parts.push(format!("about {} left", rough(left)));
        }
        lines.push(format!("{:>9} {}", "", parts.join(", ")));
        lines
    }
}

/// `40 s`, `5 min`, `3 h`: an estimate is not exact.
fn rough(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..90 => format!("{seconds} s"),
        90..5_400 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{} h", (seconds + 1_800) / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds events, each with the second at which it comes, and looks at the picture at second `at`.
    #[track_caller]
    fn check(events: &[(u64, Event)], at: u64, room: usize, expected: &[&str]) {
        let start = Instant::now();
        let mut picture = Picture::default();
        for (second, event) in events {
            picture.update(event, start + Duration::from_secs(*second));
        }
        assert_eq!(picture.lines(room, start + Duration::from_secs(at)), expected);
    }

    fn started(stages: usize) -> (u64, Event) {
        (0, Event::Started { pipeline: "p".into(), run: None, stages })
    }

    fn running(second: u64, stage: &str, expected: Option<u64>) -> (u64, Event) {
        let expected = expected.map(Duration::from_secs);
        let reasons = vec!["it never ran".to_owned()];
        (second, Event::Running { stage: stage.into(), threads: 1, reasons, expected })
    }

    fn epochs(second: u64, stage: &str, done: usize, total: usize) -> (u64, Event) {
        let event = StageEvent::Progress { done, total, unit: "epochs", text: "loss 0.31".into() };
        (second, Event::Stage { stage: stage.into(), event })
    }

    #[test]
    fn a_stage_tells_why_it_runs_until_it_tells_how_far_it_is() {
        let last = "          0 of 3 stages, 1 running";
        let events = [started(3), running(0, "train", None)];
        check(&events, 30, 9, &["  running train  30 s  it never ran", last]);
        let events = [started(3), running(0, "train", None), epochs(30, "train", 10, 50)];
        let line = "  running train  40 s, about 2 min left  10/50 epochs, loss 0.31";
        check(&events, 40, 9, &[line, last]);
    }

    #[test]
    fn what_a_stage_took_before_is_expected_until_it_is_over() {
        let last = "          0 of 1 stages, 1 running";
        let events = [started(1), running(0, "train", Some(60))];
        check(&events, 15, 9, &["  running train  15 s, about 45 s left  it never ran", last]);
        check(&events, 75, 9, &["  running train  75 s  it never ran", last]);
    }

    #[test]
    fn a_picture_never_has_more_lines_than_there_is_room() {
        let events: Vec<_> = (0..40).map(|at| running(0, &format!("s{at}"), None)).collect();
        let last = "          0 of 0 stages, 40 running";
        let first = ["  running s0  20 s  it never ran", "  running s1  20 s  it never ran", last];
        check(&events, 20, 3, &first);
        check(&events, 20, 1, &[last]);
        check(&events, 20, 0, &[]);
    }

    #[test]
    fn the_last_line_counts_and_says_when_all_may_be_over() {
        let failed = |stage: &str| Event::Failed {
            stage: stage.to_owned(),
            error: String::new(),
            elapsed: Duration::ZERO,
            log: None,
        };
        let events = [
            started(9),
            (0, Event::Cached { stage: "a".into() }),
            running(0, "b", None),
            running(0, "c", None),
            (1, failed("b")),
            (1, Event::Skipped { stage: "d".into(), because: String::new() }),
            (1, Event::Outlook { left: Duration::from_hours(2) }),
        ];
        let last = "          3 of 9 stages, 1 running, 1 cached, 1 FAILED, 1 skipped, about 2 h left";
        check(&events, 10, 1, &[last]);
        check(&[started(9)], 10, 9, &[]);
    }
}
