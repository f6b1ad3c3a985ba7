//! The record of what stands in a folder by our hand, and whose it is.

use super::ACTION;
use crate::digest::Digest;
use crate::error::{CacheError, Doing};
use crate::journal::{Journal, Magic};
use crate::layout::Layout;
use crate::record::Found;
use crate::walk::TreeFile;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

const MAGIC: &Magic = b"pipe placed v5\n\0";

/// Relative path → digests that we have put there.
pub(crate) type Files = BTreeMap<String, Vec<Digest>>;

/// What stands in a folder by our hand: more than that while a placing is under way, never less.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PlaceRecord {
    /// The folder, for people and for the collector of garbage.
    pub(crate) folder: String,
    /// The file whose results were placed last.
    pub(crate) file: String,
    /// Subfolders that the file has no more, as far as that was known when it last placed something.
    pub(crate) stale: BTreeSet<String>,
    /// All subfolders.
    pub(crate) names: BTreeSet<String>,
    /// What stands in each subfolder, or in those that were asked for.
    pub(crate) standing: BTreeMap<String, Standing>,
}

/// What stands in a subfolder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// The tree that stands there, or is being placed.
    pub(crate) tree: Digest,
    pub(super) files: Files,
}

/// The file of a [`PlaceRecord`] is a [`Journal`] of these: the first tells of every subfolder, each later one of some.
#[derive(Serialize, Deserialize)]
struct Part<'a> {
    folder: &'a str,
    file: &'a str,
    stale: Vec<&'a str>,
    /// Subfolder and [`Standing`], which is decoded when it is asked for; nothing stands where there are no bytes.
    standing: Vec<(&'a str, &'a [u8])>,
}

impl Standing {
    /// The files that were placed, relative to the subfolder.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Whether just this tree stands there, and nothing is left of a placing that was killed.
    pub(super) fn is(&self, tree: &Digest, files: &[TreeFile]) -> bool {
        let stands = |file: &TreeFile| self.files.get(&file.path).is_some_and(|put| *put == [file.digest]);
        self.tree == *tree && self.files.len() == files.len() && files.iter().all(stands)
    }
}

impl PlaceRecord {
    /// What the file of a placing says of every subfolder.
    pub(crate) fn read(path: &Path) -> Result<Found<Self>, CacheError> {
        Self::read_of(path, |_| true)
    }

    /// What the file of a placing says of some subfolders.
    pub(super) fn read_of(path: &Path, is_asked: impl Fn(&str) -> bool) -> Result<Found<Self>, CacheError> {
        Self::read_from(path, 0, is_asked)
    }

    /// What the last part of the file says, which is all of it but what stands.
    pub(super) fn read_last(path: &Path) -> Result<Found<Self>, CacheError> {
        Self::read_from(path, usize::MAX, |_| false)
    }

    /// What the parts from the given one, or the last, say of some subfolders.
    fn read_from(
        path: &Path,
        part: usize,
        is_asked: impl Fn(&str) -> bool,
    ) -> Result<Found<Self>, CacheError> {
        let Some(journal) = Journal::open(path, MAGIC).doing(ACTION)? else { return Ok(Found::Absent) };
        let parts = match read_parts(&journal, part).doing(ACTION)? {
            Ok(parts) => parts,
            Err(reason) => return Ok(Found::Corrupt(reason)),
        };
        let read = || {
            let mut record = Self::default();
            for part in &parts {
                let part: Part = postcard::from_bytes(part)?;
                part.folder.clone_into(&mut record.folder);
                part.file.clone_into(&mut record.file);
                record.stale = part.stale.into_iter().map(str::to_owned).collect();
                for (name, standing) in part.standing {
                    if standing.is_empty() {
                        record.names.remove(name);
                        record.standing.remove(name);
                        continue;
                    }
                    record.names.insert(name.to_owned());
                    if is_asked(name) {
                        record.standing.insert(name.to_owned(), postcard::from_bytes(standing)?);
                    }
                }
            }
            Ok::<_, postcard::Error>(record)
        };
        Ok(read().map_or_else(|error| Found::Corrupt(error.to_string()), Found::Record))
    }

    /// Writes what stands in the named subfolders now: adds it to the file, or writes all anew when that is due.
    pub(super) fn write<'n>(
        &self,
        layout: &Layout,
        path: &Path,
        changed: impl Iterator<Item = &'n str>,
    ) -> io::Result<()> {
        let encoded: Vec<(&str, Vec<u8>)> = changed
            .map(|name| Ok((name, self.standing.get(name).map_or(Ok(Vec::new()), postcard::to_allocvec)?)))
            .collect::<Result<_, postcard::Error>>()
            .map_err(io::Error::other)?;
        let changed = encoded.iter().map(|(name, bytes)| (*name, &**bytes));
        let journal = Journal::open(path, MAGIC)?;
        // A damaged file says nothing any more, and what is added to it would not count.
        let parts = journal.as_ref().map(|journal| read_parts(journal, 0)).transpose()?.and_then(Result::ok);
        let parts = parts.unwrap_or_default();
        let before: Vec<Part> =
            parts.iter().map(|part| postcard::from_bytes(part)).collect::<Result<_, _>>().unwrap_or_default();
        if let Some(journal) = &journal
            && !before.is_empty()
        {
            let bytes = self.encode(changed.clone())?;
            let added = journal.size_from(1) + bytes.len() as u64;
            if added <= journal.size_from(0) / 2 && journal.append(&bytes)? {
                return Ok(());
            }
        }
        let mut all: BTreeMap<&str, &[u8]> = before.into_iter().flat_map(|part| part.standing).collect();
        all.extend(changed);
        let all = all.into_iter().filter(|(_, standing)| !standing.is_empty());
        Journal::replace(layout, path, MAGIC, &[&self.encode(all)?])
    }

    fn encode<'a>(&'a self, standing: impl Iterator<Item = (&'a str, &'a [u8])>) -> io::Result<Vec<u8>> {
        let stale = self.stale.iter().map(String::as_str).collect();
        let part = Part { folder: &self.folder, file: &self.file, stale, standing: standing.collect() };
        postcard::to_allocvec(&part).map_err(io::Error::other)
    }
}

/// The parts of the file of a placing from the given one, or the last, or why they are of no use.
fn read_parts(journal: &Journal, from: usize) -> io::Result<Result<Vec<Vec<u8>>, String>> {
    if journal.count() == 0 || !journal.is_whole() {
        return Ok(Err("it is cut short, or of another kind".to_owned()));
    }
    let from = from.min(journal.count() - 1);
    let parts =
        (from..journal.count()).map(|part| journal.read(part)).collect::<io::Result<Option<Vec<_>>>>()?;
    Ok(parts.ok_or_else(|| "its checksum does not fit its content".to_owned()))
}
