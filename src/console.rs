//! The only file of the engine that prints. Progress and hints go to stderr, data to stdout.
#![expect(clippy::print_stderr, reason = "printing is this file's purpose")]

use crate::event::{Event, StageReport};
use pipe_stages::context::StageEvent;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Prints what a command was asked for.
pub fn data(text: impl Display) {
    // A closed pipe (`pipe list | head`) is the reader's choice, not an error.
    let _ = write!(std::io::stdout(), "{text}");
}

pub fn data_line(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

pub fn error(text: impl Display) {
    eprintln!("error: {text}");
}

pub fn hint(text: impl Display) {
    eprintln!("{text}");
}

/// Whether messages may be coloured: a terminal, and no `NO_COLOR`.
pub fn color() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Shows a run as it goes. On a terminal the last line lists the running stages; elsewhere every line stays.
pub struct Console {
    terminal: bool,
    color: bool,
    running: BTreeMap<String, Running>,
    drawn: Instant,
    /// There are so many stages that those in the cache are only counted.
    many: bool,
}

struct Running {
    since: Instant,
    progress: String,
    /// When a line about it was last printed, where lines stay.
    told: Instant,
}

/// Without a terminal a long stage says so this often.
const TELL_EVERY: Duration = Duration::from_secs(15);
/// Of more stages, those in the cache are not told one by one.
const MANY: usize = 50;
const REDRAW_EVERY: Duration = Duration::from_millis(100);

impl Default for Console {
    fn default() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            color: color(),
            running: BTreeMap::new(),
            drawn: Instant::now(),
            many: false,
        }
    }
}

impl Console {
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Started { stages } => self.many = *stages > MANY,
            Event::Cached { stage } => {
                self.running.remove(stage);
                if !self.many {
                    self.line("cached", Style::Dim, stage, "");
                }
            }
            Event::WouldRun { stage, reasons } => {
                self.line("would run", Style::Bold, stage, &because(reasons));
            }
            Event::MightRun { stage, because } => self.line("may run", Style::Plain, stage, because),
            Event::Running { stage, reasons, .. } => {
                self.line("running", Style::Bold, stage, &because(reasons));
                let now = Instant::now();
                self.running
                    .insert(stage.clone(), Running { since: now, progress: String::new(), told: now });
            }
            Event::Stage { stage, event } => self.stage(stage, event),
            Event::Done { stage, report } => {
                self.running.remove(stage);
                self.line("done", Style::Good, stage, &done(report));
            }
            Event::Retrying { stage, error, elapsed, failed, tries, wait } => {
                self.running.remove(stage);
                let (elapsed, wait) = (duration(*elapsed), duration(*wait));
                let text =
                    format!("try {failed} of {tries} failed after {elapsed}, the next is in {wait}: {error}");
                self.line("retry", Style::Bad, stage, &text);
            }
            Event::Failed { stage, error, elapsed, log } => {
                self.running.remove(stage);
                let log = log.as_ref().map(|path| format!("\n    log: {}", path.display()));
                let text = format!("after {}: {error}{}", duration(*elapsed), log.unwrap_or_default());
                self.line("FAILED", Style::Bad, stage, &text);
            }
            Event::Interrupted { stage, elapsed } => {
                self.running.remove(stage);
                self.line("stopped", Style::Bad, stage, &format!("after {}", duration(*elapsed)));
            }
            Event::Skipped { stage, because } => self.line("skipped", Style::Dim, stage, because),
            Event::Warning(text) => self.line("warning", Style::Bad, "", text),
            Event::Ended(_) => self.clear(),
        }
        self.redraw(false);
    }

    fn stage(&mut self, stage: &str, event: &StageEvent) {
        match event {
            StageEvent::Progress { done, total, unit, text } => {
                let Some(running) = self.running.get_mut(stage) else { return };
                running.progress = format!("{done}/{total} {unit}");
                if !text.is_empty() {
                    running.progress += &format!(", {text}");
                }
                if !self.terminal && running.told.elapsed() >= TELL_EVERY {
                    running.told = Instant::now();
                    let progress = running.progress.clone();
                    self.line("…", Style::Dim, stage, &progress);
                }
            }
            StageEvent::Warning(text) => self.line("warning", Style::Bad, stage, text),
            StageEvent::PeakMemory { .. } => {}
            StageEvent::Note(text) => self.line("note", Style::Dim, stage, text),
        }
    }

    fn line(&mut self, word: &str, style: Style, stage: &str, text: &str) {
        self.clear();
        let gap = if stage.is_empty() || text.is_empty() { "" } else { "  " };
        let word = format!("{word:>9}");
        let word = if self.color { style.paint(&word) } else { word };
        let text = if self.color { Style::Dim.paint(text) } else { text.to_owned() };
        eprintln!("{word} {stage}{gap}{text}");
        self.redraw(true);
    }

    fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }

    fn redraw(&mut self, now: bool) {
        if !self.terminal || self.running.is_empty() || !(now || self.drawn.elapsed() >= REDRAW_EVERY) {
            return;
        }
        self.drawn = Instant::now();
        let parts: Vec<_> = self
            .running
            .iter()
            .map(|(stage, running)| {
                let seconds = running.since.elapsed().as_secs();
                format!("{stage} {} {seconds} s", running.progress)
            })
            .collect();
        let width = terminal_width().saturating_sub(1);
        let text: String = format!("  {}", parts.join(" | ")).chars().take(width).collect();
        eprint!("\r\x1b[2K{text}");
        let _ = std::io::stderr().flush();
    }
}

fn terminal_width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// The first reasons, on one line.
fn because(reasons: &[String]) -> String {
    const SHOWN: usize = 3;
    let more = reasons.len().saturating_sub(SHOWN);
    let mut text = reasons[..reasons.len() - more].join("; ");
    if more > 0 {
        text += &format!("; and {more} more");
    }
    text
}

fn done(report: &StageReport) -> String {
    let mut parts = vec![duration(report.elapsed)];
    if report.items_made + report.items_reused > 0 {
        parts.push(format!("{} items made, {} reused", report.items_made, report.items_reused));
    }
    for (name, value) in &report.facts {
        let value = match value.as_f64() {
            Some(number) if value.is_f64() => format!("{number:.4}"),
            _ => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        };
        parts.push(format!("{} {value}", name.replace('_', " ")));
    }
    if report.unchanged {
        parts.push("same bytes as before".into());
    }
    parts.join(", ")
}

/// `0.12 s`, `83 s`, `12 min 5 s`, `3 h 4 min`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.2} s", time.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// `640 KiB`, `18 MiB`, `12 GiB`.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..10_737_418_240 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[derive(Clone, Copy)]
enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
}

impl Style {
    fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
