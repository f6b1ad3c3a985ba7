//! The only part of the engine that prints. Progress and hints go to stderr, data to stdout.

use self::live::Live;
use crate::event::{Event, StageReport};
use pipe_cache::Timestamp;
use pipe_stages::context::StageEvent;
use pipe_stages::text::visible;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

mod json;
mod live;

/// The first failure to print what a command was asked for.
static UNPRINTED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints what a command was asked for.
pub fn data(text: impl Display) {
    if let Err(error) = write!(io::stdout(), "{text}") {
        failed(error);
    }
}

pub fn data_line(text: impl Display) {
    data(format_args!("{text}\n"));
}

fn failed(error: io::Error) {
    // A closed pipe (`pipe list | head`) is the reader's choice, not an error.
    if error.kind() != io::ErrorKind::BrokenPipe {
        UNPRINTED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Why not all was printed that a command was asked for.
pub fn unprinted() -> Option<io::Error> {
    if let Err(error) = io::stdout().flush() {
        failed(error);
    }
    UNPRINTED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

pub fn error(text: impl Display) {
    hint(format_args!("error: {text}"));
}

/// One call of the system a line: thousands of them cost more than what they tell of, and parts of lines of two
/// processes would mix.
pub fn hint(text: impl Display) {
    // Nobody can be told that nobody can be told.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Whether messages may be coloured: a terminal, and no `NO_COLOR`.
pub fn color() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// On a terminal below what has happened the running stages, each with how far it is; elsewhere every line stays.
    #[default]
    Full,
    /// Failures and warnings.
    Quiet,
    /// One JSON object an event, on stdout; fields: `src/console/json.rs`.
    Json,
}

/// Shows a run as it goes.
pub struct Console {
    output: Output,
    color: bool,
    live: Option<Live>,
    /// When something was last said of each running stage, where lines stay.
    told: BTreeMap<String, Instant>,
    /// There are so many stages that those in the cache are only counted.
    many: bool,
}

/// Without a terminal a long stage says so this often.
const TELL_EVERY: Duration = Duration::from_secs(15);
/// Of more stages, those in the cache are not told one by one.
const MANY: usize = 50;

impl Console {
    pub fn new(output: Output) -> Self {
        let terminal = std::io::stderr().is_terminal() && !::console::is_dumb();
        Self {
            output,
            color: color(),
            live: (terminal && output == Output::Full).then(Live::new),
            told: BTreeMap::new(),
            many: false,
        }
    }

    pub fn show(&mut self, event: &Event) {
        if let Event::Started { stages, .. } = event {
            self.many = *stages > MANY;
        }
        let line = match self.output {
            Output::Json => {
                if let Some(object) = json::object(event, Timestamp::now()) {
                    data_line(object);
                }
                return;
            }
            Output::Quiet => line(event).filter(|line| line.style == Style::Bad),
            Output::Full => line(event).filter(|_| self.is_told(event)),
        };
        let line = line.map(|line| line.paint(self.color));
        match &mut self.live {
            // A closed terminal is no reason to end a run.
            Some(live) => drop(live.show(event, line.as_deref())),
            None => line.into_iter().for_each(hint),
        }
    }

    /// Whether the event is worth a line that stays.
    fn is_told(&mut self, event: &Event) -> bool {
        match event {
            Event::Cached { .. } => !self.many,
            // It has a line while it runs.
            Event::Running { .. } if self.live.is_some() => false,
            Event::Running { stage, .. } => {
                self.told.insert(stage.clone(), Instant::now());
                true
            }
            Event::Stage { stage, event: StageEvent::Progress { .. } } => {
                let due = |told: &&mut Instant| self.live.is_none() && told.elapsed() >= TELL_EVERY;
                let due = self.told.get_mut(stage).filter(due);
                due.map(|told| *told = Instant::now()).is_some()
            }
            _ => true,
        }
    }
}

/// What is said of an event.
struct Line {
    word: &'static str,
    style: Style,
    stage: String,
    text: String,
}

impl Line {
    fn paint(&self, color: bool) -> String {
        let Self { word, style, .. } = self;
        // What programs print and files are called is no command to the terminal.
        let (stage, text) = (visible(&self.stage), visible(&self.text));
        let gap = if stage.is_empty() || text.is_empty() { "" } else { "  " };
        let word = format!("{word:>9}");
        if color {
            format!("{} {stage}{gap}{}", style.paint(&word), Style::Dim.paint(&text))
        } else {
            format!("{word} {stage}{gap}{text}")
        }
    }
}

fn line(event: &Event) -> Option<Line> {
    let line = |word, style, stage: &str, text: &str| {
        Some(Line { word, style, stage: stage.to_owned(), text: text.to_owned() })
    };
    match event {
        Event::Started { .. } | Event::Outlook { .. } | Event::Tick | Event::Ended(_) => None,
        Event::Cached { stage } => line("cached", Style::Dim, stage, ""),
        Event::WouldRun { stage, reasons } => line("would run", Style::Bold, stage, &because(reasons)),
        Event::MightRun { stage, because } => line("may run", Style::Plain, stage, because),
        Event::Running { stage, reasons, .. } => line("running", Style::Bold, stage, &because(reasons)),
        Event::Stage { stage, event } => match event {
            StageEvent::Progress { .. } => line("…", Style::Dim, stage, &progress(event)?),
            StageEvent::Warning(text) => line("warning", Style::Bad, stage, text),
            StageEvent::PeakMemory { .. } => None,
            StageEvent::Note(text) => line("note", Style::Dim, stage, text),
        },
        Event::Done { stage, report } => line("done", Style::Good, stage, &done(report)),
        Event::Retrying { stage, error, elapsed, failed, tries, wait } => {
            let (elapsed, wait) = (duration(*elapsed), duration(*wait));
            let text =
                format!("try {failed} of {tries} failed after {elapsed}, the next is in {wait}: {error}");
            line("retry", Style::Bad, stage, &text)
        }
        Event::Failed { stage, error, elapsed, log } => {
            let log = log.as_ref().map(|path| format!("\n    log: {}", path.display()));
            let text = format!("after {}: {error}{}", duration(*elapsed), log.unwrap_or_default());
            line("FAILED", Style::Bad, stage, &text)
        }
        Event::Interrupted { stage, elapsed } => {
            line("stopped", Style::Bad, stage, &format!("after {}", duration(*elapsed)))
        }
        Event::Skipped { stage, because } => line("skipped", Style::Dim, stage, because),
        Event::Warning(text) => line("warning", Style::Bad, "", text),
    }
}

/// `12/50 epochs, loss 0.31`.
fn progress(event: &StageEvent) -> Option<String> {
    let StageEvent::Progress { done, total, unit, text } = event else { return None };
    let gap = if text.is_empty() { "" } else { ", " };
    Some(format!("{done}/{total} {unit}{gap}{text}"))
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
            // Four decimals would call a small number nothing.
            Some(number) if value.is_f64() && number != 0.0 && number.abs() < 1e-3 => format!("{number:.1e}"),
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

/// `512 B`, `1.5 KiB`, `2.0 GiB`.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = size as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{size} B") } else { format!("{value:.1} {unit}") }
}

#[derive(Clone, Copy, PartialEq, Eq)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_fact_is_rounded_to_nothing() {
        let facts = [("dice", 0.876_543), ("difference", 0.000_001_2), ("loss", 0.0), ("shift", -0.000_9)];
        let facts = facts.map(|(name, value)| (name.to_owned(), serde_json::json!(value)));
        let report = StageReport { facts: facts.into_iter().collect(), ..StageReport::default() };
        assert_eq!(done(&report), "0.00 s, dice 0.8765, difference 1.2e-6, loss 0.0000, shift -9.0e-4");
    }

    #[test]
    fn sizes_have_one_decimal_from_a_kibibyte_on() {
        let known = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (3 * 1024 * 1024 * 1024, "3.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ];
        for (size, text) in known {
            assert_eq!(bytes(size), text);
        }
    }
}
