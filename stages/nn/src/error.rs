//! Every way this crate can fail, as one enum. Context (stage, file of the pipeline) is added by the caller.

use std::path::PathBuf;

/// Why a network could not be built, run, trained, saved or read.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// A configuration value that cannot work, found before any compute.
    #[error("{name} is {value}, but {rule}")]
    Config { name: &'static str, value: String, rule: String },
    /// Two shapes that must agree do not.
    #[error("{what} has shape {found:?}, expected {expected:?}")]
    Shape { what: String, found: Vec<usize>, expected: Vec<usize> },
    /// A case breaks the contract of [`Case`](crate::Case).
    #[error("case `{id}`: {problem}")]
    Case { id: String, problem: String },
    /// All that is to be learnt is one answer.
    #[error(
        "every label of the {cases} training cases is class {class}: there is nothing to tell apart; look at the labels and \
         at the split"
    )]
    OneClass { class: u8, cases: usize },
    /// The source of cases failed.
    #[error("case {index} of the {split} cases cannot be loaded")]
    Load {
        split: &'static str,
        index: usize,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Loss or gradient are no numbers, or beyond all bounds; the parameters of that step are not kept.
    #[error(
        "the training diverged in epoch {epoch}, step {step}: loss {loss}, gradient norm {gradient_norm} (cases {}); \
         look at these cases, or try a smaller learning rate or `clip`",
        cases.join(", ")
    )]
    Diverged { loss: f32, gradient_norm: f64, epoch: usize, step: usize, cases: Vec<String> },
    /// A checkpoint would not fit.
    #[error(
        "{} is full: {} MiB are needed for a checkpoint, {} MiB are free", path.display(), needed >> 20, available >> 20
    )]
    DiskFull { path: PathBuf, needed: u64, available: u64 },
    /// `should_stop` asked to end; the checkpoint, if one was asked for, is written.
    #[error("training interrupted in epoch {epoch} after step {step}")]
    Interrupted { epoch: usize, step: usize },
    /// The device that was asked for.
    #[error(
        "`device: {wish}` cannot be used: {reason}; `device: auto` takes the processor then, `cpu` always"
    )]
    NoDevice { wish: String, reason: String },
    /// A parameter is absent from a file or unknown to the network.
    #[error("parameter `{name}` {problem}")]
    Parameter { name: String, problem: String },
    /// A checkpoint that belongs to another network, configuration or data set.
    #[error("checkpoint {} was written by a different run: {what}", path.display())]
    ForeignCheckpoint { path: PathBuf, what: String },
    /// Bytes that are not what this crate writes.
    #[error("{what} is not readable: {problem}")]
    Format { what: String, problem: String },
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The device behind dfdx failed, as when memory is exhausted.
    #[error("device failed while {action}: {problem}")]
    Device { action: &'static str, problem: String },
}

impl NnError {
    pub(crate) fn device(action: &'static str, problem: impl std::fmt::Debug) -> Self {
        Self::Device { action, problem: format!("{problem:?}") }
    }
}
