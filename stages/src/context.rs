//! All that a running stage can see: its declared inputs and outputs, its seed, and the services of the engine.

use crate::artifact::{Artifact, In, InMany, InOptional, Out};
use crate::error::StageError;
use pipe_cache::Digest;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What the engine does for a running stage.
pub trait Services: Send + Sync {
    /// Where a file with this content can be read: a declared external file, or an object of the cache.
    fn source(&self, digest: &Digest) -> Option<PathBuf>;
    /// Runs `make` in an empty directory unless it ran before for this key, then places its files in `into`.
    fn memo(
        &self,
        key: &serde_json::Value,
        into: &Path,
        make: &mut dyn FnMut(&Path) -> Result<serde_json::Value, StageError>,
    ) -> Result<serde_json::Value, StageError>;
    fn emit(&self, event: StageEvent);
    /// True once the user asked to stop, or the time of the stage is up; it then returns [`StageError::Interrupted`]
    /// soon.
    fn interrupted(&self) -> bool;
    /// True once the user asked again: what does not stop is ended.
    fn insisted(&self) -> bool {
        false
    }
}

/// What a running stage tells the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum StageEvent {
    /// `done` of `total` units (cases, epochs); `text` is the state in a few words, e.g. `"loss 0.31"`.
    Progress { done: usize, total: usize, unit: &'static str, text: String },
    /// Something the user should know although the stage goes on.
    Warning(String),
    /// A line for the log of the stage.
    Note(String),
    /// Most memory that the program of the stage held at once.
    PeakMemory { bytes: u64 },
}

/// One input artifact: where it lies, and for a port that takes many, which stage it came from.
#[derive(Debug, Clone)]
pub struct InputDir {
    /// `train[fold=0]`, or the name of the port where there is only one.
    pub label: String,
    pub dir: PathBuf,
    /// It is all that a pattern such as `train[*]` names.
    pub alone: bool,
}

/// External files of one declaration, as they were hashed for the key.
#[derive(Debug, Clone, Default)]
pub struct ExternalFiles {
    pub root: PathBuf,
    /// Sorted by path.
    pub files: Vec<ExternalFile>,
}

#[derive(Debug, Clone)]
pub struct ExternalFile {
    /// Relative to the root, with `/` between names.
    pub path: String,
    pub digest: Digest,
    pub size: u64,
}

/// All that a running stage can see. Shared by the threads of the stage.
pub struct StageContext {
    pub kind: &'static str,
    pub version: u32,
    pub inputs: BTreeMap<String, Vec<InputDir>>,
    pub outputs: BTreeMap<String, PathBuf>,
    pub externals: BTreeMap<String, ExternalFiles>,
    pub environment: BTreeMap<String, Option<String>>,
    pub seed: Option<u64>,
    /// The folder that a program works in: its outputs lie below `out/`. It holds no files at first; folders may be
    /// left of another stage.
    pub work: PathBuf,
    /// Names of the GPUs that the stage has to itself, as CUDA knows them. No part of the key.
    pub gpus: Vec<String>,
    /// Empty at first; removed when the stage ends.
    pub scratch: PathBuf,
    /// Where [`StageContext::checkpoint`] lies.
    pub checkpoint_dir: PathBuf,
    pub services: Box<dyn Services>,
    /// Small facts about the run, kept with the result.
    pub summary: Mutex<BTreeMap<String, serde_json::Value>>,
}

impl StageContext {
    pub fn read<A: Artifact>(&self, port: &In<A>) -> Result<A, StageError> {
        A::load(self.input_dir(port)?)
    }

    pub fn read_optional<A: Artifact>(&self, port: &InOptional<A>) -> Result<Option<A>, StageError> {
        match self.inputs.get(port.name).and_then(|dirs| dirs.first()) {
            Some(input) => A::load(&input.dir).map(Some),
            None => Ok(None),
        }
    }

    /// The artifacts of a port that takes many, each with the name of the stage that made it.
    pub fn read_many<A: Artifact>(&self, port: &InMany<A>) -> Result<Vec<(String, A)>, StageError> {
        let dirs = self.inputs.get(port.name).ok_or_else(|| undeclared(port.name))?;
        dirs.iter().map(|input| Ok((input.label.clone(), A::load(&input.dir)?))).collect()
    }

    /// The read-only directory of an input.
    pub fn input_dir<A: Artifact>(&self, port: &In<A>) -> Result<&Path, StageError> {
        let dirs = self.inputs.get(port.name).ok_or_else(|| undeclared(port.name))?;
        dirs.first().map(|input| input.dir.as_path()).ok_or_else(|| undeclared(port.name))
    }

    pub fn write<A: Artifact>(&self, port: &Out<A>, value: &A) -> Result<(), StageError> {
        value.store(self.output_dir(port)?)
    }

    /// The directory of an output, for artifacts that are written file by file.
    pub fn output_dir<A: Artifact>(&self, port: &Out<A>) -> Result<&Path, StageError> {
        self.outputs.get(port.name).map(PathBuf::as_path).ok_or_else(|| undeclared(port.name))
    }

    /// The stage's seed. An error unless the stage declared [`Ports::seeded`](crate::artifact::Ports::seeded).
    pub fn seed(&self) -> Result<u64, StageError> {
        self.seed.ok_or(StageError::UndeclaredSeed)
    }

    /// A directory that survives a kill of this very action; removed when the stage is done.
    pub fn checkpoint(&self) -> Result<&Path, StageError> {
        std::fs::create_dir_all(&self.checkpoint_dir)
            .map_err(StageError::io("create", &self.checkpoint_dir))?;
        Ok(&self.checkpoint_dir)
    }

    /// The files of a declared [`External`](crate::artifact::External).
    pub fn external(&self, name: &str) -> Result<&ExternalFiles, StageError> {
        self.externals.get(name).ok_or_else(|| undeclared(name))
    }

    /// Where the file with this content can be read.
    pub fn source(&self, digest: &Digest) -> Result<PathBuf, StageError> {
        self.services.source(digest).ok_or_else(|| {
            StageError::Data(format!(
                "no file with content {digest} is at hand: it was moved or changed since the import; run again"
            ))
        })
    }

    /// Caches the work on one item of a stage, such as one case.
    ///
    /// `make` writes files into the directory it is given and returns a small value; it must depend on nothing but
    /// `key` (name every parameter and content digest it uses). Its files end up in `into`, also when they come
    /// from an earlier run. Safe to call from many threads.
    pub fn memo<K, V, F>(&self, key: &K, into: &Path, make: F) -> Result<V, StageError>
    where
        K: Serialize,
        V: Serialize + DeserializeOwned,
        F: FnOnce(&Path) -> Result<V, StageError>,
    {
        if self.interrupted() {
            return Err(StageError::Interrupted);
        }
        let json = |error: serde_json::Error| StageError::Internal(format!("memo value: {error}"));
        let key = serde_json::json!({ "kind": self.kind, "version": self.version,
            "item": serde_json::to_value(key).map_err(json)? });
        let mut make = Some(make);
        let value = self.services.memo(&key, into, &mut |dir| {
            let make = make.take().ok_or_else(|| StageError::Internal("memo ran twice".into()))?;
            serde_json::to_value(make(dir)?).map_err(json)
        })?;
        serde_json::from_value(value).map_err(json)
    }

    pub fn progress(&self, done: usize, total: usize, unit: &'static str, text: impl Into<String>) {
        self.services.emit(StageEvent::Progress { done, total, unit, text: text.into() });
    }

    pub fn warn(&self, text: impl Into<String>) {
        self.services.emit(StageEvent::Warning(text.into()));
    }

    pub fn note(&self, text: impl Into<String>) {
        self.services.emit(StageEvent::Note(text.into()));
    }

    pub fn interrupted(&self) -> bool {
        self.services.interrupted()
    }

    pub fn insisted(&self) -> bool {
        self.services.insisted()
    }

    /// Keeps a small fact with the result, shown by `pipe list` and the report.
    pub fn fact(&self, name: &str, value: impl Into<serde_json::Value>) {
        let mut summary = self.summary.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        summary.insert(name.to_owned(), value.into());
    }
}

fn undeclared(port: &str) -> StageError {
    StageError::UndeclaredPort(port.to_owned())
}
