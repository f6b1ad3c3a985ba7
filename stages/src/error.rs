//! What can go wrong while a stage runs. Each layer adds its own context once; the cause stays inside.

use std::path::{Path, PathBuf};
use thiserror::Error;

/// A stage failed while it ran.
#[derive(Debug, Error)]
pub enum StageError {
    #[error("cannot {action} `{}`", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    /// A file of an artifact does not hold what its format promises.
    #[error("cannot read `{}`", path.display())]
    Malformed { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    /// The data are not usable; the text names the thing, both values and what to do.
    #[error("{0}")]
    Data(String),
    /// An error of another crate, with what was being done.
    #[error("{doing}")]
    Inner { doing: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("interrupted")]
    Interrupted,
    #[error("internal error: stage used port `{0}` that it did not declare")]
    UndeclaredPort(String),
    #[error("internal error: stage drew a seed without declaring it")]
    UndeclaredSeed,
    #[error("internal error: {0}")]
    Internal(String),
}

impl StageError {
    /// An I/O error with the action that failed, to be used with `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub fn malformed<E>(path: &Path) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = path.to_owned();
        move |source| Self::Malformed { path, source: source.into() }
    }

    /// An error of another crate, with what was being done, e.g. `"reading image of case `c12`"`.
    pub fn inner<E>(doing: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let doing = doing.into();
        move |source| Self::Inner { doing, source: source.into() }
    }

    /// This error and its causes on one line, outermost first.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let inner = error.to_string();
            if !text.ends_with(&inner) {
                text.push_str(": ");
                text.push_str(&inner);
            }
            cause = error.source();
        }
        text
    }
}
