//! All that happens in a run, as values. The console, the trace and tests read the same events.

use pipe_cache::RunId;
use pipe_stages::context::StageEvent;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// `stages` are wanted by this run.
    Started {
        pipeline: String,
        /// The record that it will leave, if it leaves one.
        run: Option<RunId>,
        stages: usize,
    },
    /// By what its stages took before, the run ends after this time.
    Outlook {
        left: Duration,
    },
    /// Nothing happened for a moment: who shows times may show them anew.
    Tick,
    /// The result was in the cache.
    Cached {
        stage: String,
    },
    /// A stage must run; nothing runs in a dry run.
    WouldRun {
        stage: String,
        reasons: Vec<String>,
    },
    /// Whether a stage must run depends on what the stages before it will make.
    MightRun {
        stage: String,
        because: String,
    },
    Running {
        stage: String,
        threads: usize,
        reasons: Vec<String>,
        /// How long it may take, by what it took before.
        expected: Option<Duration>,
    },
    /// A running stage tells how far it is, warns or notes.
    Stage {
        stage: String,
        event: StageEvent,
    },
    Done {
        stage: String,
        report: StageReport,
    },
    /// A try failed; after a pause the stage runs again.
    Retrying {
        stage: String,
        error: String,
        elapsed: Duration,
        /// Tries that failed so far, and how many there may be.
        failed: u32,
        tries: u32,
        wait: Duration,
    },
    Failed {
        stage: String,
        error: String,
        elapsed: Duration,
        /// Where its log is, if it came to start.
        log: Option<PathBuf>,
    },
    /// Stopped because the user asked for it.
    Interrupted {
        stage: String,
        elapsed: Duration,
    },
    /// Not run because of `because`.
    Skipped {
        stage: String,
        because: String,
    },
    /// Something about the cache or the run that the user should know.
    Warning(String),
    Ended(Totals),
}

/// What a stage that ran reports beside its outputs.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct StageReport {
    pub elapsed: Duration,
    /// Items made and items taken from the cache inside the stage.
    pub items_made: usize,
    pub items_reused: usize,
    pub facts: BTreeMap<String, serde_json::Value>,
    /// Outputs are byte for byte those of the run before.
    pub unchanged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    pub ran: usize,
    pub cached: usize,
    pub failed: usize,
    pub skipped: usize,
    /// Stages that were stopped while they ran.
    pub stopped: usize,
    pub interrupted: bool,
}
