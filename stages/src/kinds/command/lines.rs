//! What a program prints, line by line into the log of its stage, in bounded memory.
//!
//! The last lines are held back for a moment: if the program fails, those from stderr are told with the failure and
//! not twice.

use crate::context::StageContext;
use crate::text::visible;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The end of a program's output that is told with its failure.
const HELD_LINES: usize = 20;
/// A line appears at most this late.
const HELD_FOR: Duration = Duration::from_millis(500);
/// Longer lines are cut into pieces.
const LINE_BYTES: usize = 16 * 1024;
/// The log of one program: lines beyond it are counted, and the last ones told at the end.
const LOG_BYTES: usize = 8 * 1024 * 1024;
/// What a short line costs on its way beside its text.
const LINE_OVERHEAD: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Bytes of one stream since its last line end.
#[derive(Debug)]
pub(super) struct LineBuffer {
    stream: Stream,
    bytes: Vec<u8>,
}

impl LineBuffer {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, bytes: Vec::new() }
    }

    /// Takes what was just read.
    pub(super) fn push(&mut self, mut bytes: &[u8], lines: &mut Lines) {
        lines.now = Instant::now();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.bytes.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.end_line(lines);
        }
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > LINE_BYTES {
            match self.bytes.iter().rposition(|byte| *byte == b'\r') {
                // A progress bar draws over what stands before.
                Some(drawn) => drop(self.bytes.drain(..=drawn)),
                None => self.end_line(lines),
            }
        }
    }

    /// Takes what has no line end as a line.
    pub(super) fn finish(&mut self, lines: &mut Lines) {
        if !self.bytes.is_empty() {
            self.end_line(lines);
        }
    }

    fn end_line(&mut self, lines: &mut Lines) {
        let bytes = self.bytes.strip_suffix(b"\r").unwrap_or(&self.bytes);
        let shown = bytes.iter().rposition(|byte| *byte == b'\r').map_or(bytes, |drawn| &bytes[drawn + 1..]);
        lines.push(self.stream, visible(&String::from_utf8_lossy(shown)).into_owned());
        self.bytes.clear();
    }
}

/// The lines of both streams, in the order in which they came.
pub(super) struct Lines<'a> {
    context: &'a StageContext,
    held: VecDeque<(Instant, Stream, String)>,
    /// When the lines that are pushed came.
    now: Instant,
    /// What may still be logged.
    allowed: usize,
    not_shown: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn new(context: &'a StageContext) -> Self {
        Self { context, held: VecDeque::new(), now: Instant::now(), allowed: LOG_BYTES, not_shown: 0 }
    }

    fn push(&mut self, stream: Stream, text: String) {
        if self.held.len() == HELD_LINES {
            self.tell_first();
        }
        self.held.push_back((self.now, stream, text));
    }

    /// Logs the lines that were held long enough.
    pub(super) fn tell_old(&mut self) {
        // Beyond the limit the last lines wait for the end.
        while self.allowed > 0 && self.held.front().is_some_and(|(since, ..)| since.elapsed() >= HELD_FOR) {
            self.tell_first();
        }
    }

    fn tell_first(&mut self) {
        let Some((_, _, text)) = self.held.pop_front() else { return };
        if self.allowed == 0 {
            self.not_shown += 1;
            return;
        }
        self.allowed = self.allowed.saturating_sub(text.len() + LINE_OVERHEAD);
        self.context.note(text);
        if self.allowed == 0 {
            let limit = LOG_BYTES / 1024 / 1024;
            self.context.note(format!(
                "… more than {limit} MiB were printed: of what follows, only the end is shown"
            ));
        }
    }

    /// Logs the rest; after a failure without the last lines of stderr, which are returned.
    pub(super) fn finish(mut self, failed: bool) -> Vec<String> {
        if self.not_shown > 0 {
            self.context.note(format!("… {} lines are not shown", self.not_shown));
        }
        let mut last = Vec::new();
        for (_, stream, text) in self.held.drain(..) {
            if failed && stream == Stream::Stderr {
                last.push(text);
            } else {
                self.context.note(text);
            }
        }
        last
    }
}
