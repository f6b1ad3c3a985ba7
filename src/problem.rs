//! What is wrong with a pipeline file: all of it at once, each with its place and a help line.

use crate::yaml::{self, NodeId};
use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceSpan};
use std::fmt;

/// One thing that is wrong, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub message: String,
    /// A few words at the caret.
    pub label: String,
    /// What to do.
    pub help: String,
    pub at: At,
}

/// Where a problem lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Node(NodeId),
    Byte(usize),
}

impl Problem {
    pub fn new(at: NodeId, message: impl Into<String>) -> Self {
        Self { message: message.into(), label: "here".into(), help: String::new(), at: At::Node(at) }
    }

    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: help.into(), ..self }
    }
}

/// Every problem of one file, with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    pub file: String,
    pub text: String,
    pub problems: Vec<Problem>,
}

/// More than this many are counted, not shown.
const SHOWN: usize = 50;

impl Problems {
    /// Sorted by place, as a reader meets them.
    pub fn new(file: &str, text: &str, problems: Vec<Problem>) -> Self {
        let mut placed: Vec<_> =
            problems.into_iter().map(|problem| (problem_order(&problem), problem)).collect();
        placed.sort_by_key(|(order, _)| *order);
        let problems = placed.into_iter().map(|(_, problem)| problem).collect();
        Self { file: file.into(), text: text.into(), problems }
    }

    /// Every problem as text with the line it is on, a caret and a help line; `color` for terminals.
    pub fn render(&self, color: bool) -> String {
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        self.render_as(Severity::Error, color) + &format!("{}: {count} {noun}, nothing was run\n", self.file)
    }

    /// The same of things that are not wrong but seldom meant.
    pub fn render_advice(&self, color: bool) -> String {
        let count = self.problems.len();
        let noun = if count == 1 { "piece" } else { "pieces" };
        self.render_as(Severity::Advice, color) + &format!("{}: {count} {noun} of advice\n", self.file)
    }

    fn render_as(&self, severity: Severity, color: bool) -> String {
        let theme =
            if color { miette::GraphicalTheme::unicode() } else { miette::GraphicalTheme::unicode_nocolor() };
        let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(110);
        let mut text = String::new();
        for problem in self.problems.iter().take(SHOWN) {
            let placed = Placed {
                source: NamedSource::new(&self.file, self.text.clone()),
                at: self.offset(problem.at),
                problem,
                severity,
            };
            // Writing to a string cannot fail.
            let _ = handler.render_report(&mut text, &placed);
            text.push('\n');
        }
        let count = self.problems.len();
        if count > SHOWN {
            text.push_str(&format!("… and {} more\n", count - SHOWN));
        }
        text
    }

    fn offset(&self, at: At) -> Option<usize> {
        match at {
            At::Byte(byte) => Some(byte),
            At::Node(id) => yaml::place(&self.text, id),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// Node numbers grow with the place in the text.
fn problem_order(problem: &Problem) -> (usize, NodeId) {
    match problem.at {
        At::Byte(byte) => (byte, NodeId::NOWHERE),
        At::Node(id) => (0, id),
    }
}

#[derive(Debug)]
struct Placed<'a> {
    source: NamedSource<String>,
    at: Option<usize>,
    problem: &'a Problem,
    severity: Severity,
}

impl fmt::Display for Placed<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.problem.message)
    }
}

impl std::error::Error for Placed<'_> {}

impl Diagnostic for Placed<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.problem.help.is_empty()).then(|| Box::new(&self.problem.help) as Box<dyn fmt::Display>)
    }
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.at.map(|_| &self.source as &dyn miette::SourceCode)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let at = self.at?;
        let span = SourceSpan::from((at, marked(&self.source.inner()[at..])));
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some(self.problem.label.clone()), span))))
    }
}

/// The word of `known` that `word` was probably meant to be.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let best = known.into_iter().map(|name| (strsim::damerau_levenshtein(word, name), name)).min()?;
    let size = word.chars().count();
    // Of a word of one letter nothing is left that could be meant.
    (best.0 <= size.max(3) / 3 && best.0 < size).then_some(best.1)
}

/// `did you mean …?` where one is close, else every known word.
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone, what: &str) -> String {
    if let Some(name) = did_you_mean(word, known.clone()) {
        return format!("did you mean `{name}`?");
    }
    let names: Vec<_> = known.into_iter().collect();
    if names.is_empty() {
        format!("there are no {what} here")
    } else {
        format!("known {what}: {}", names.join(", "))
    }
}

/// Bytes to mark at a value: its quotes, its brackets as far as the line goes, or its word.
fn marked(text: &str) -> usize {
    let line = text.lines().next().unwrap_or_default();
    let closing = |open: char, close: char| {
        let mut depth = 0;
        line.char_indices().find_map(|(at, c)| {
            depth += i32::from(c == open) - i32::from(c == close);
            (depth == 0).then_some(at + c.len_utf8())
        })
    };
    let length = match line.chars().next() {
        Some(quote @ ('"' | '\'')) => line[1..].find(quote).map(|end| end + 2),
        Some('[') => closing('[', ']'),
        Some('{') => closing('{', '}'),
        _ => line.find([',', '}', ']', ':', '#']).map(|end| line[..end].trim_end().len()),
    };
    length.unwrap_or(line.trim_end().len()).max(1)
}
