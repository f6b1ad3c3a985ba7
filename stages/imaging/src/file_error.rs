//! The error of every format: what was to be done with which file. What went wrong is the fault of the format.

use std::error::Error;
use std::path::{Path, PathBuf};

/// A file (or the folder of a series) that could not be read or written; the fault is the cause.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct FileError<F: Error + 'static> {
    action: &'static str,
    path: PathBuf,
    // A result should not be as large as the longest fault.
    #[source]
    fault: Box<F>,
}

impl<F: Error + 'static> FileError<F> {
    /// `action` completes "cannot …".
    pub(crate) fn new(action: &'static str, path: &Path, fault: F) -> Self {
        Self { action, path: path.to_owned(), fault: Box::new(fault) }
    }

    pub(crate) fn into_fault(self) -> F {
        *self.fault
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    pub fn fault(&self) -> &F {
        &self.fault
    }
}
