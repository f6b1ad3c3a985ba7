//! Listing what lies in the folders of the cache. Reads no content.

use crate::digest::Digest;
use crate::error::{CacheError, Doing};
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const ACTION: &str = "list the cache";

/// One entry of a folder.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) stat: Metadata,
}

/// A file whose name is a digest.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) digest: Digest,
    pub(crate) path: PathBuf,
    pub(crate) stat: Metadata,
}

/// The entries of a folder, sorted; what vanishes meanwhile is left out.
pub(crate) fn entries(folder: &Path) -> Result<Vec<Entry>, CacheError> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).doing(ACTION)? {
        let path = entry.doing(ACTION)?.path();
        match fs_err::symlink_metadata(&path) {
            Ok(stat) => found.push(Entry { path, stat }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).doing(ACTION),
        }
    }
    found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// The entries of a folder that are named by a digest.
pub(crate) fn named(folder: &Path) -> Result<Vec<Named>, CacheError> {
    Ok(entries(folder)?.into_iter().filter_map(|entry| name_of(entry, "")).collect())
}

/// The files of a bucket of 256 folders.
pub(crate) fn bucket(folder: &Path) -> Result<Vec<Named>, CacheError> {
    let mut found = Vec::new();
    for shard in entries(folder)? {
        let prefix = shard.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if shard.stat.is_dir() && prefix.len() == 2 {
            found.extend(entries(&shard.path)?.into_iter().filter_map(|entry| name_of(entry, &prefix)));
        }
    }
    Ok(found)
}

fn name_of(entry: Entry, prefix: &str) -> Option<Named> {
    let name = entry.path.file_name()?.to_str()?;
    let digest = format!("{prefix}{name}").parse().ok()?;
    Some(Named { digest, path: entry.path, stat: entry.stat })
}

/// Visits every file below `path`, itself if it is one. What vanishes meanwhile is left out.
pub(crate) fn files_below(path: &Path, visit: &mut dyn FnMut(&Path, &Metadata)) -> Result<(), CacheError> {
    let stat = match fs_err::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result.doing(ACTION)?,
    };
    if !stat.is_dir() {
        visit(path, &stat);
        return Ok(());
    }
    let found = match fs_err::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result.and_then(Iterator::collect::<io::Result<Vec<_>>>).doing(ACTION)?,
    };
    found.iter().try_for_each(|entry| files_below(&entry.path(), visit))
}

/// The time since an entry, its links and its times were last changed; zero for a time to come.
pub(crate) fn age(stat: &Metadata, now: SystemTime) -> Duration {
    let changed = u64::try_from(stat.ctime()).unwrap_or_default();
    let changed = UNIX_EPOCH + Duration::new(changed, stat.ctime_nsec() as u32);
    let latest = stat.modified().map_or(changed, |modified| modified.max(changed));
    now.duration_since(latest).unwrap_or_default()
}
