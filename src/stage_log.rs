//! One log file a stage and run, `.pipe/logs/RUN/STAGE.log`, written as events arrive: what a killed run has told is
//! there. Reads events; decides nothing. A log that grows too long loses its middle.

use crate::console;
use crate::event::Event;
use pipe_cache::{Digest, Timestamp};
use pipe_stages::context::StageEvent;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// No log file grows beyond this; one that would is cut to its beginning and its end.
const MAX_SIZE: u64 = 10 << 20;
/// Progress is logged this often, and when it is complete.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// The logs of one run.
pub struct StageLogs {
    folder: PathBuf,
    open: BTreeMap<String, StageLog>,
}

impl StageLogs {
    /// Logs below `folder`, which is made when the first stage starts.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, open: BTreeMap::new() }
    }

    /// Writes what the event says into the log of its stage. If that fails the stage has no further log, and the
    /// warning that is returned says so.
    pub fn observe(&mut self, event: &Event) -> Option<String> {
        let (stage, result) = match event {
            Event::Running { stage, threads, reasons, .. } => (stage, self.begin(stage, *threads, reasons)),
            Event::Stage { stage, event } => (stage, self.with(stage, |log| log.event(event))),
            Event::Done { stage, .. } | Event::Cached { stage } => (stage, self.end(stage, "end", "done")),
            Event::Retrying { stage, error, failed, tries, .. } => {
                let text = format!("try {failed} of {tries}: {error}");
                (stage, self.with(stage, |log| log.line("failed", &text)))
            }
            Event::Failed { stage, error, .. } => (stage, self.end(stage, "failed", error)),
            Event::Interrupted { stage, .. } => (stage, self.end(stage, "end", "stopped")),
            _ => return None,
        };
        let error = result.err()?;
        self.open.remove(stage);
        Some(format!("cannot write the log of `{stage}` in {}: {error}", self.folder.display()))
    }

    /// The log of a stage that is running.
    pub fn path(&self, stage: &str) -> Option<PathBuf> {
        self.open.contains_key(stage).then(|| self.folder.join(file_name(stage)))
    }

    fn begin(&mut self, stage: &str, threads: usize, reasons: &[String]) -> io::Result<()> {
        let path = self.folder.join(file_name(stage));
        let mut log = match StageLog::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(&self.folder)?;
                StageLog::open(&path)?
            }
            result => result?,
        };
        let plural = if threads == 1 { "" } else { "s" };
        log.line("begin", &format!("{stage} at {} with {threads} thread{plural}", Timestamp::now()))?;
        reasons.iter().try_for_each(|reason| log.line("because", reason))?;
        self.open.insert(stage.to_owned(), log);
        Ok(())
    }

    fn with(&mut self, stage: &str, write: impl FnOnce(&mut StageLog) -> io::Result<()>) -> io::Result<()> {
        self.open.get_mut(stage).map_or(Ok(()), write)
    }

    fn end(&mut self, stage: &str, word: &str, text: &str) -> io::Result<()> {
        self.open.remove(stage).map_or(Ok(()), |mut log| log.line(word, text))
    }
}

/// The name of a stage as the name of its log file: other characters as `%` and their bytes in hex.
pub fn file_name(stage: &str) -> String {
    const MAX: usize = 200;
    let mut name = String::new();
    for byte in stage.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-+=,[]".contains(&byte) {
            name.push(char::from(byte));
        } else {
            name += &format!("%{byte:02X}");
        }
    }
    if name.len() > MAX {
        name.truncate(MAX);
        name += &format!("-{}", Digest::of_bytes(stage.as_bytes()).short());
    }
    name + ".log"
}

struct StageLog {
    file: File,
    max_size: u64,
    since: Instant,
    size: u64,
    /// Where the beginning that is kept ends; known once the log was cut.
    head: Option<u64>,
    /// Bytes and lines that were cut so far.
    cut: (u64, u64),
    /// When progress was last written.
    told: Option<Instant>,
}

impl StageLog {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::options().create(true).read(true).append(true).open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file,
            max_size: MAX_SIZE,
            since: Instant::now(),
            size,
            head: None,
            cut: (0, 0),
            told: None,
        })
    }

    fn event(&mut self, event: &StageEvent) -> io::Result<()> {
        match event {
            StageEvent::Note(text) => self.line("note", text),
            StageEvent::PeakMemory { bytes } => {
                self.line("memory", &format!("{} at most", console::bytes(*bytes)))
            }
            StageEvent::Warning(text) => self.line("warning", text),
            StageEvent::Progress { done, total, unit, text } => {
                let recent = self.told.is_some_and(|told| told.elapsed() < PROGRESS_EVERY);
                if recent && done < total {
                    return Ok(());
                }
                self.told = Some(Instant::now());
                let gap = if text.is_empty() { "" } else { ", " };
                self.line("progress", &format!("{done}/{total} {unit}{gap}{text}"))
            }
        }
    }

    /// Seconds since the start, what kind of line it is, and the text; every line of a text has both in front.
    fn line(&mut self, word: &str, text: &str) -> io::Result<()> {
        let seconds = self.since.elapsed().as_secs_f64();
        let mut lines = String::new();
        for line in text.split('\n') {
            lines += &format!("{seconds:>10.3}  {word:<8}  {line}\n");
        }
        self.file.write_all(lines.as_bytes())?;
        self.size += lines.len() as u64;
        if self.size > self.max_size { self.cut_middle() } else { Ok(()) }
    }

    /// Keeps the beginning and the end, and says between them what is gone.
    fn cut_middle(&mut self) -> io::Result<()> {
        // Beginning and end together leave room, so that the next cut is not the next line.
        let kept_size = self.max_size / 3;
        let head = match self.head {
            Some(head) => head,
            None => self.line_end(kept_size)?,
        };
        let tail = self.line_end(self.size - kept_size)?;
        let gone = self.bytes(head, tail)?;
        let kept = self.bytes(tail, self.size)?;
        // The mark of an earlier cut is not a line of the stage.
        let mark = if self.head.is_some() { self.mark().len() as u64 } else { 0 };
        let lines = gone.split(|&byte| byte == b'\n').count() as u64 - 1;
        self.cut = (self.cut.0 + gone.len() as u64 - mark, self.cut.1 + lines - u64::from(mark > 0));
        self.head = Some(head);
        let end = [self.mark().as_bytes(), &kept].concat();
        self.file.set_len(head)?;
        self.file.write_all(&end)?;
        self.size = head + end.len() as u64;
        Ok(())
    }

    fn mark(&self) -> String {
        let (bytes, lines) = self.cut;
        let megabytes = bytes as f64 / f64::from(1 << 20);
        format!("{:>10}  {:<8}  {lines} lines ({megabytes:.1} MiB) are left out here\n", "…", "cut")
    }

    /// Where the line that holds the byte at `offset` ends.
    fn line_end(&mut self, offset: u64) -> io::Result<u64> {
        let rest = self.bytes(offset, self.size)?;
        let end = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| at + 1);
        Ok(offset + end as u64)
    }

    fn bytes(&mut self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(from))?;
        let mut bytes = vec![0; (to - from) as usize];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes lines `1` to `count` of 100 bytes each into a log of at most 5,000 bytes.
    #[track_caller]
    fn check(count: usize, cut: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.log");
        let mut log = StageLog { max_size: 5_000, ..StageLog::open(&path).unwrap() };
        for number in 1..=count {
            log.line("note", &format!("{number:077}")).unwrap();
            assert!(path.metadata().unwrap().len() <= 5_000);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let (marks, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("left out"));
        let numbers: Vec<usize> = lines.iter().map(|line| line[22..].parse().unwrap()).collect();
        assert!(numbers.is_sorted() && numbers[0] == 1 && *numbers.last().unwrap() == count, "{numbers:?}");
        assert_eq!(marks.len(), usize::from(cut));
        let left_out =
            marks.first().map_or(0, |mark| mark.split_whitespace().nth(2).unwrap().parse().unwrap());
        assert_eq!(numbers.len() + left_out, count);
    }

    #[test]
    fn a_log_that_grows_too_long_loses_its_middle_and_says_how_much() {
        check(50, false);
        check(51, true);
        check(99, true);
        check(2_000, true);
    }

    #[test]
    fn every_line_of_a_text_has_its_place_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.log");
        StageLog::open(&path).unwrap().line("failed", "one\n  two").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(|line| &line[10..]).collect();
        assert_eq!(lines, ["  failed    one", "  failed      two"]);
    }

    #[test]
    fn names_of_stages_become_names_of_files_and_no_two_meet() {
        assert_eq!(file_name("train[fold=0,model=unet3d]"), "train[fold=0,model=unet3d].log");
        assert_eq!(file_name("s[x=a/b]"), "s[x=a%2Fb].log");
        let [one, two] = ["a", "b"].map(|end| file_name(&format!("s[x={}{end}]", "é".repeat(300))));
        assert!(one.len() < 255 && one != two);
    }
}
