//! What can go wrong in the cache, as one type; problems that do not stop the work are [`Warning`]s.

use crate::digest::Digest;
use std::{fmt, io, path::PathBuf};

/// A failed cache operation.
///
/// A machine error names the action here and the path in its source (`fs_err` puts it there).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The operating system refused an operation; the source names the path.
    #[error("cannot {action}")]
    Io {
        /// What the cache was doing, e.g. `store an object`.
        action: &'static str,
        /// The failed call and its path.
        source: io::Error,
    },
    /// An object that is needed is not in the store: a miss, repaired by a rerun or by a remote.
    #[error("object {digest} ({role}) is missing from the cache")]
    MissingObject {
        /// The object.
        digest: Digest,
        /// What it is needed for, e.g. `tree` or ``file `a/b.npy` ``.
        role: String,
    },
    /// An object does not hold what its name says. It has been moved to quarantine: from here on a miss.
    #[error("object {digest} is corrupt in the cache: {reason}")]
    CorruptObject {
        /// The object as it was asked for.
        digest: Digest,
        /// How it differs.
        reason: String,
    },
    /// A stage output or an external input holds something that is neither a file nor a folder.
    #[error("`{}` is a {found}; only files and folders can be stored", path.display())]
    UnsupportedFile {
        /// The entry.
        path: PathBuf,
        /// What it is, e.g. `symbolic link`.
        found: &'static str,
    },
    /// A name cannot be stored in a tree.
    #[error("the name {name:?} cannot be stored: {reason}")]
    UnsafeName {
        /// The name, lossy where it is not UTF-8.
        name: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A file was written to each time it was hashed.
    #[error("`{}` is busy: it changed during each of {attempts} attempts to hash it", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
        /// How often it was hashed.
        attempts: u32,
    },
    /// Something that the cache did not place stands where a file or folder must go.
    #[error("`{}` is in the way: a {found} that pipe did not put there", path.display())]
    InTheWay {
        /// The obstacle.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A symbolic link leads back to a folder that contains it.
    #[error("`{}` links back to a folder that holds it", path.display())]
    LinkLoop {
        /// The link.
        path: PathBuf,
    },
    /// A file of a declared set is not below the set's root.
    #[error("`{}` is not below `{}`", path.display(), root.display())]
    OutsideRoot {
        /// The file.
        path: PathBuf,
        /// The root of the set.
        root: PathBuf,
    },
    /// What a parameter names is not there.
    #[error("`{}`, which `{parameter}` names, is not there; it was looked for in `{}`", path.display(), folder.display())]
    NotThere {
        /// The parameter.
        parameter: &'static str,
        /// Its value.
        path: PathBuf,
        /// The folder that a relative path begins at.
        folder: PathBuf,
    },
    /// A text is not what it should be, e.g. a digest or a manifest of another format.
    #[error("{what} is not readable: {reason}")]
    Malformed {
        /// The thing that was read.
        what: &'static str,
        /// Why not.
        reason: String,
    },
}

impl CacheError {
    /// Whether the engine must treat this as a cache miss (with a warning) rather than as a failure.
    pub fn is_miss(&self) -> bool {
        matches!(self, Self::MissingObject { .. } | Self::CorruptObject { .. })
    }

    pub(crate) fn malformed(what: &'static str, reason: impl fmt::Display) -> Self {
        Self::Malformed { what, reason: reason.to_string() }
    }
}

/// Something that was wrong on disk and was treated as absent; the caller decides how to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file that was not used.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ignored `{}`: {}", self.path.display(), self.reason)
    }
}

/// Adds the action to an I/O error that already names its path.
pub(crate) trait Doing<T> {
    fn doing(self, action: &'static str) -> Result<T, CacheError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, action: &'static str) -> Result<T, CacheError> {
        self.map_err(|source| CacheError::Io { action, source })
    }
}
