//! What was moved out of the way, and the way back.
//!
//! `quarantine/gc-<milliseconds>-<random>/` holds what the collector moved, under the path that it
//! had below `.pipe`; from there it is still served: see [`recall`]. Files beside these folders are
//! damaged and are never served again.

use crate::error::{CacheError, Doing};
use crate::files;
use crate::layout::Layout;
use crate::time::Timestamp;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

const PREFIX: &str = "gc-";

/// One entry of the quarantine.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    /// When the collector made it; `None` for a damaged file.
    pub(crate) collected_at: Option<Timestamp>,
}

/// Makes the folder for what is collected at `time`.
pub(crate) fn folder(layout: &Layout, time: Timestamp) -> Result<PathBuf, CacheError> {
    let prefix = format!("{PREFIX}{}-", time.0);
    let made = tempfile::Builder::new().prefix(&prefix).rand_bytes(8).tempdir_in(layout.quarantine());
    Ok(made.doing("make a folder in quarantine")?.keep())
}

/// Everything in quarantine.
pub(crate) fn entries(layout: &Layout) -> Result<Vec<Entry>, CacheError> {
    let mut entries = Vec::new();
    for entry in fs_err::read_dir(layout.quarantine()).doing("list the quarantine")? {
        let path = entry.doing("list the quarantine")?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let time = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')?.0.parse().ok());
        entries.push(Entry { collected_at: time.map(Timestamp), path });
    }
    entries.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(entries)
}

/// Moves the file of `path`, which is below `.pipe`, to the same place below `folder`; `false` if it is gone.
pub(crate) fn move_into(layout: &Layout, folder: &Path, path: &Path) -> io::Result<bool> {
    let relative = path.strip_prefix(layout.root()).map_err(io::Error::other)?;
    let place = folder.join(relative);
    fs_err::create_dir_all(place.parent().unwrap_or(folder))?;
    match fs_err::rename(path, place) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        result => result.map(|()| true),
    }
}

/// Brings back the file of `path` if the collector moved it; `false` if it is not there either.
///
/// A file that meanwhile came to stand there is not replaced.
pub(crate) fn recall(layout: &Layout, path: &Path) -> bool {
    let Ok(relative) = path.strip_prefix(layout.root()) else { return false };
    let Ok(entries) = std::fs::read_dir(layout.quarantine()) else { return false };
    let mut folders: Vec<_> = entries
        .flatten()
        .filter(|folder| folder.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
        .map(|folder| folder.path())
        .collect();
    // What was moved last is what stood there last.
    folders.sort_unstable_by(|one, other| other.cmp(one));
    folders.iter().map(|folder| folder.join(relative)).any(|moved| {
        // A failure is a miss: what is not brought back is made again.
        let back = moved.exists() && files::link_new(&moved, path).is_ok();
        if back {
            // Left there it is deleted with its folder.
            let _ = std::fs::remove_file(&moved);
        }
        back
    })
}

/// Moves a damaged record away, under a name that tells what it was.
pub(crate) fn reject(layout: &Layout, path: &Path, name: &str) -> io::Result<()> {
    let unique = files::temporary(layout)?;
    let suffix = unique.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    fs_err::rename(path, layout.quarantine().join(format!("{name}-{suffix}")))
}
