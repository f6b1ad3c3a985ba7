//! Records of runs, for people: history, comparison, `why` of last week. Nothing is served from them.
//! A field that was added later has a default, so the records of older versions still read.

use crate::digest::Digest;
use crate::dirty::DirtyReason;
use crate::error::{CacheError, Doing};
use crate::files;
use crate::layout::Layout;
use crate::manifest::ActionKey;
use crate::time::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Version of the JSON of a run record.
pub(crate) const RUN_FORMAT: u32 = 1;

/// Name of a run, e.g. `20260301-090500-250-1f3a9c`: the UTC time and a random part. Sorts by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// A name for a run that starts at `time`.
    pub fn at(time: Timestamp) -> Self {
        let (year, month, day) = time.date();
        let (hour, minute, second, millisecond) = time.time_of_day();
        // The standard library seeds it from the system's random numbers.
        let random = RandomState::new().hash_one(std::process::id()) & 0xff_ffff;
        Self(format!(
            "{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}-{millisecond:03}-{random:06x}"
        ))
    }
}

impl RunId {
    /// A name for a run that starts at `time`, after `latest`: the order of the names is the order of the runs also
    /// where a clock went back, which then costs the name its exact time.
    pub fn after(time: Timestamp, latest: Option<&Self>) -> Self {
        let id = Self::at(time);
        match latest {
            // Digits sort as text, and no random part is beyond the letters up to `f`.
            Some(latest) if *latest >= id && latest.0.as_bytes()[19] == b'-' => {
                Self(format!("{}-{}", next(&latest.0[..19]), &id.0[20..]))
            }
            _ => id,
        }
    }
}

/// The digits counted up by one as a number, whatever stands between them.
fn next(digits: &str) -> String {
    let mut bytes = digits.as_bytes().to_vec();
    for byte in bytes.iter_mut().rev().filter(|byte| byte.is_ascii_digit()) {
        if *byte < b'9' {
            *byte += 1;
            break;
        }
        *byte = b'0';
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl FromStr for RunId {
    type Err = CacheError;

    /// Accepts hex digits and hyphens only, as the name becomes a file name.
    fn from_str(text: &str) -> Result<Self, CacheError> {
        let plain = |byte: u8| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 26 || !text.bytes().all(plain) {
            return Err(CacheError::malformed("a run id", format!("{text:?}")));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for RunId {
    type Error = CacheError;

    fn try_from(text: String) -> Result<Self, CacheError> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

/// One `pipe run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its name.
    pub id: RunId,
    /// Name of the pipeline.
    pub pipeline: String,
    /// The pipeline file, as the user gave it.
    pub file: String,
    /// Why the user ran it.
    pub message: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; `None` while it runs and for a run that was killed.
    pub finished_at: Option<Timestamp>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Commit of the user's repository.
    pub commit: Option<String>,
    /// Name of the machine.
    #[serde(default)]
    pub host: Option<String>,
    /// Cores of the machine.
    #[serde(default)]
    pub cores: Option<usize>,
    /// Threads that its stages shared.
    #[serde(default)]
    pub threads: Option<usize>,
    /// `gpu` if a stage of the run asks for one and there is one, else `cpu`.
    #[serde(default)]
    pub device: Option<String>,
    /// Name → version of the programs and libraries that did the work, as far as they are known.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    /// Most memory that the process held at once, without the programs that it started.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
    /// Where params did not come from the pipeline file, e.g. `--set epochs=9`.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// Params of the pipeline as they were used.
    #[serde(default)]
    pub params: BTreeMap<String, Value>,
    /// Names that people gave to it. Kept apart (see `tags.rs`), filled in when it is read.
    #[serde(default)]
    pub tags: Vec<String>,
    /// In the order of the plan.
    pub stages: Vec<StageRecord>,
    /// The stages that this run found as an earlier one left them, if they are not among `stages`.
    /// [`RunHistory::load`] puts them there, unless the record of the earlier run was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchanged: Option<Unchanged>,
}

/// Stages that are recorded elsewhere: a run that changed little need not repeat the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unchanged {
    /// The run that tells of them.
    pub run: RunId,
    /// How many they are.
    pub stages: usize,
    /// How many records must be read to know all of them, this one not counted.
    pub records: usize,
}

/// What became of one stage in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Name in the plan, with its matrix cell.
    pub name: String,
    /// Kind of the stage.
    pub kind: String,
    /// Key; `None` if its inputs never came to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ActionKey>,
    /// Object that holds the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<DirtyReason>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// How long it took; for a cached stage how long it took when it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// Output port → tree.
    pub outputs: BTreeMap<String, Digest>,
    /// Why it failed, or was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Items found in the memo.
    pub memo_hits: u64,
    /// Items computed.
    pub memo_misses: u64,
    /// Tries before the last one.
    #[serde(default)]
    pub failed_tries: Vec<FailedTry>,
    /// Small facts that the stage told.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub summary: Value,
    /// Input port with one source → the stage that it was read from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
    /// Threads that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Most memory that the program of the stage held at once. `None` for a stage that ran inside of pipe, where it
    /// cannot be told from that of others, and for a program that held less than pipe itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

impl StageRecord {
    /// The record of a stage whose result a later run found.
    fn found_again(self) -> Self {
        Self {
            outcome: Outcome::Cached,
            reasons: Vec::new(),
            started_at: None,
            error: None,
            memo_hits: 0,
            memo_misses: 0,
            failed_tries: Vec::new(),
            threads: None,
            peak_memory_bytes: None,
            ..self
        }
    }
}

/// One try of a stage that failed and was tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedTry {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// Why it failed.
    pub error: String,
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It ran to its end.
    Ran,
    /// Its result was in the cache.
    Cached,
    /// It failed.
    Failed,
    /// A stage above it failed.
    Skipped,
    /// It was stopped.
    Interrupted,
}

/// The file of a run record. The version comes first, so another version is told from a damaged file.
#[derive(Serialize, Deserialize)]
struct RunFile<R> {
    format: u32,
    run: R,
}

/// The run records of one `.pipe` folder.
#[derive(Debug, Clone)]
pub struct RunHistory {
    pub(crate) layout: Arc<Layout>,
}

impl RunHistory {
    /// The history below `layout`.
    pub fn new(layout: Arc<Layout>) -> Self {
        Self { layout }
    }

    /// Writes the record whole, in place of an earlier state of the same run.
    pub fn save(&self, run: &RunRecord) -> Result<(), CacheError> {
        const ACTION: &str = "record a run";
        let mut bytes = serde_json::to_vec_pretty(&RunFile { format: RUN_FORMAT, run })
            .map_err(std::io::Error::from)
            .doing(ACTION)?;
        bytes.push(b'\n');
        files::replace(&self.layout, &self.layout.run(&run.id), &bytes).doing(ACTION)
    }

    /// Reads one run; `None` if there is none of that name.
    pub fn load(&self, id: &RunId) -> Result<Option<RunRecord>, CacheError> {
        let Some(mut run) = self.load_news(id)? else { return Ok(None) };
        let mut seen = BTreeSet::from([id.clone()]);
        let all = run.stages.len() + run.unchanged.as_ref().map_or(0, |unchanged| unchanged.stages);
        while let Some(Unchanged { run: earlier, .. }) = &run.unchanged {
            if !seen.insert(earlier.clone()) {
                let reason = format!("it leads back to itself over {earlier}");
                return Err(CacheError::malformed("the record of a run", reason));
            }
            // What a removed record told is lost; the rest is not.
            let Some(earlier) = self.load_news(earlier)? else {
                let lost = all.saturating_sub(run.stages.len());
                run.unchanged.iter_mut().for_each(|unchanged| unchanged.stages = lost);
                break;
            };
            let mut later: HashMap<String, StageRecord> =
                run.stages.drain(..).map(|stage| (stage.name.clone(), stage)).collect();
            let stages = earlier.stages.into_iter().map(|stage| match later.remove(&stage.name) {
                Some(later) => later,
                None => stage.found_again(),
            });
            run.stages = stages.collect();
            run.stages.extend(later.into_values());
            run.unchanged = earlier.unchanged;
        }
        Ok(Some(run))
    }

    /// Reads one run as it was written: without the stages that an earlier run tells of.
    pub fn load_news(&self, id: &RunId) -> Result<Option<RunRecord>, CacheError> {
        let bytes = match fs_err::read(self.layout.run(id)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            result => result.doing("read a run")?,
        };
        let malformed = |reason: String| CacheError::malformed("the record of a run", reason);
        let file: RunFile<IgnoredAny> =
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        if file.format != RUN_FORMAT {
            return Err(malformed(format!("it has format {}, this pipe reads {RUN_FORMAT}", file.format)));
        }
        let file: RunFile<RunRecord> =
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let mut run = file.run;
        if run.id != *id {
            return Err(malformed(format!("it is the record of {}", run.id)));
        }
        run.tags = self.tags_of(id);
        Ok(Some(run))
    }

    /// The names of all runs, the latest first. Other files in the folder are passed over.
    pub fn ids(&self) -> Result<Vec<RunId>, CacheError> {
        let mut ids = Vec::new();
        for entry in fs_err::read_dir(self.layout.runs()).doing("list runs")? {
            let name = entry.doing("list runs")?.file_name();
            ids.extend(name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<RunId>().ok()));
        }
        ids.sort_unstable_by(|one, other| other.cmp(one));
        Ok(ids)
    }
}
