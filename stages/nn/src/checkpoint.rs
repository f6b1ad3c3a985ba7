//! The state of a training between two steps, as one file that is replaced atomically. Random numbers are
//! counter-based, so the step is all of their state.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::NnError;
use crate::optimizer::Moments;
use crate::progress::{EpochRow, LayerRow};
use crate::weights::{Parameter, Parameters, read_tensors, write_tensors};

const FILE: &str = "checkpoint.safetensors";
const METADATA: &str = "training";
/// Bumped when the layout of the file changes.
const FORMAT: u32 = 3;
/// Left free on the disk beside a checkpoint, in bytes: others write too.
const SPARE: u64 = 64 << 20;

/// All that a resumed training needs; everything but tensors is in the file's metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    format: u32,
    /// Identifies network, configuration and cases: a checkpoint of anything else is refused.
    pub(crate) run: String,
    /// The epoch in progress.
    pub(crate) epoch: usize,
    /// Batches of that epoch already done.
    pub(crate) batch: usize,
    /// Optimiser steps in all.
    pub(crate) step: usize,
    /// Samples seen in all.
    pub(crate) samples: usize,
    /// Sums over the batches done, as bits: decimal text would round.
    pub(crate) loss_sum: u64,
    pub(crate) norm_sum: u64,
    pub(crate) seconds: f64,
    pub(crate) best_epoch: Option<usize>,
    pub(crate) log: Vec<EpochRow>,
    pub(crate) layers: Vec<LayerRow>,
}

impl Position {
    pub(crate) fn start(run: String) -> Self {
        Self {
            format: FORMAT,
            run,
            epoch: 0,
            batch: 0,
            step: 0,
            samples: 0,
            loss_sum: 0,
            norm_sum: 0,
            seconds: 0.0,
            best_epoch: None,
            log: Vec::new(),
            layers: Vec::new(),
        }
    }
}

/// A position with its tensors.
pub(crate) struct Checkpoint {
    pub(crate) position: Position,
    pub(crate) parameters: Parameters,
    pub(crate) best: Option<Parameters>,
    /// Running mean of the parameters.
    pub(crate) average: Option<Parameters>,
    /// In the order of `parameters`, internal layout.
    pub(crate) moments: Vec<Moments>,
}

impl Checkpoint {
    /// Replaces the checkpoint in `directory`: a reader sees the old one or the new one, whole.
    pub(crate) fn save(&self, directory: &Path) -> Result<(), NnError> {
        let mut tensors: Vec<(String, &[usize], &[f32])> = Vec::new();
        for (prefix, parameters) in [
            ("parameter", Some(&self.parameters)),
            ("best", self.best.as_ref()),
            ("average", self.average.as_ref()),
        ] {
            for entry in parameters.into_iter().flat_map(Parameters::iter) {
                tensors.push((format!("{prefix}/{}", entry.name), &entry.shape, &entry.values));
            }
        }
        let lengths: Vec<[usize; 1]> = self.moments.iter().map(|(first, _)| [first.len()]).collect();
        for ((entry, (first, second)), length) in self.parameters.iter().zip(&self.moments).zip(&lengths) {
            tensors.push((format!("first/{}", entry.name), length, first));
            tensors.push((format!("second/{}", entry.name), length, second));
        }
        let text = serde_json::to_string(&self.position).expect("a position is plain data");
        let bytes = write_tensors(tensors, Some((METADATA, text)));
        let path = directory.join(FILE);
        let temporary = directory.join(format!("{FILE}.{}.tmp", std::process::id()));
        let write = || {
            remove_leftovers(directory)?;
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            // Rename last: a reader must never see a half-written checkpoint.
            std::fs::rename(&temporary, &path)
        };
        let io = |source| NnError::Io { action: "write checkpoint", path: path.clone(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        check_space(directory, bytes.len() as u64)?;
        write().map_err(io)
    }

    /// Reads the checkpoint of `run` from `directory`; `None` where there is none.
    ///
    /// # Errors
    /// [`NnError::ForeignCheckpoint`] when it belongs to another run, [`NnError::Format`] when it is damaged.
    pub(crate) fn load(directory: &Path, run: &str) -> Result<Option<Self>, NnError> {
        let path = directory.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(NnError::Io { action: "read checkpoint", path, source }),
        };
        let what = format!("checkpoint {}", path.display());
        let format = |problem: String| NnError::Format { what: what.clone(), problem };
        let (mut tensors, metadata) = read_tensors(&bytes, &what)?;
        let text = metadata.get(METADATA).ok_or_else(|| format(format!("it has no `{METADATA}` entry")))?;
        let position: Position = serde_json::from_str(text).map_err(|error| format(error.to_string()))?;
        check_origin(&position, run, path)?;
        let mut group = |prefix: &str| -> Vec<Parameter> {
            let names: Vec<String> =
                tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
            let entries = names.into_iter().map(|name| {
                let (shape, values) = tensors.remove(&name).expect("the name was just listed");
                Parameter { name: name[prefix.len()..].to_owned(), shape, values }
            });
            entries.collect()
        };
        let (parameters, best) = (Parameters::new(group("parameter/")), Parameters::new(group("best/")));
        let average = Some(Parameters::new(group("average/"))).filter(|average| average.iter().count() > 0);
        let (first, second) = (Parameters::new(group("first/")), Parameters::new(group("second/")));
        let mut moments = Vec::new();
        for entry in parameters.iter() {
            let read = |moment: &Parameters| {
                let (_, values) = moment.get(&entry.name)?;
                (values.len() == entry.values.len()).then(|| values.to_vec())
            };
            let pair = read(&first).zip(read(&second));
            moments.push(
                pair.ok_or_else(|| format(format!("moments of `{}` are missing or short", entry.name)))?,
            );
        }
        let best = position.best_epoch.is_some().then_some(best);
        Ok(Some(Self { position, parameters, best, average, moments }))
    }
}

/// Removes files that a killed process was writing. One process at a time has the directory.
fn remove_leftovers(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(FILE) && name.ends_with(".tmp") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Checks that a file of `needed` bytes fits beside the one it replaces.
fn check_space(directory: &Path, needed: u64) -> Result<(), NnError> {
    let Ok(disk) = rustix::fs::statvfs(directory) else {
        // A file system that does not tell: the write itself will.
        return Ok(());
    };
    let available = disk.f_bavail.saturating_mul(disk.f_frsize);
    if available >= needed.saturating_add(SPARE) {
        return Ok(());
    }
    Err(NnError::DiskFull { path: directory.to_owned(), needed: needed.saturating_add(SPARE), available })
}

fn check_origin(position: &Position, run: &str, path: PathBuf) -> Result<(), NnError> {
    if position.format != FORMAT {
        let what = format!("format {}, expected {FORMAT}", position.format);
        return Err(NnError::ForeignCheckpoint { path, what });
    }
    if position.run == run {
        return Ok(());
    }
    let differs = position.run.lines().zip(run.lines()).find(|(theirs, ours)| theirs != ours);
    let what = match differs {
        Some((theirs, ours)) => format!("{theirs}; this run has {ours}"),
        None => "it has another number of cases".to_owned(),
    };
    Err(NnError::ForeignCheckpoint { path, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_does_not_fit_the_disk_is_refused_before_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        check_space(directory.path(), 1).unwrap();
        let text = check_space(directory.path(), u64::MAX / 2).unwrap_err().to_string();
        assert!(text.contains("MiB are needed for a checkpoint") && text.contains("free"), "{text}");
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["checkpoint.safetensors", "checkpoint.safetensors.17.tmp", "notes.tmp"] {
            std::fs::write(directory.path().join(name), "x").unwrap();
        }
        remove_leftovers(directory.path()).unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["checkpoint.safetensors", "notes.tmp"]);
    }
}
