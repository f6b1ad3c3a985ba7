//! Files outside of the cache that stages read: hashed for the key, found again by content, checked afterwards.

use crate::plan::PlannedStage;
use pipe_cache::{Cache, CacheError, Digest, Expected, ExternalRecord, Listing, StatCache, Watched};
use pipe_stages::artifact::{Absent, External};
use pipe_stages::context::{ExternalFile, ExternalFiles};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The hashed external files of one stage.
#[derive(Debug, Default, Clone)]
pub struct Externals {
    /// Name in the manifest → what was listed. A declaration with parts has one entry a part.
    listings: Vec<(String, Arc<Listing>)>,
    files: BTreeMap<String, ExternalFiles>,
    /// What must be as it is for the next reading to give the same.
    watched: Vec<Watched<'static>>,
}

/// Files and folders that a stage declares and cannot do without, but which are not there: the parameter that names each, and
/// the path.
pub fn missing(planned: &PlannedStage) -> Vec<(&'static str, PathBuf)> {
    let mut missing = Vec::new();
    for external in &planned.ports().externals {
        let paths: Vec<PathBuf> = match external.absent {
            Absent::Refused if !external.parts.is_empty() => {
                external.parts.iter().map(|part| external.path.join(part)).collect()
            }
            _ => vec![external.path.clone()],
        };
        // A link to nothing is there; what reads it says where it leads.
        let gone = paths.into_iter().filter(|path| path.symlink_metadata().is_err());
        missing.extend(gone.map(|path| (external.parameter, path)));
    }
    missing
}

impl Externals {
    /// Hashes what the stage declared; unchanged files are known by their stat.
    pub fn read(planned: &PlannedStage, cache: &Cache, stats: &StatCache) -> Result<Self, CacheError> {
        let mut externals = Self::default();
        for external in &planned.ports().externals {
            externals.add(external, cache, stats)?;
        }
        Ok(externals)
    }

    fn add(&mut self, external: &External, cache: &Cache, stats: &StatCache) -> Result<(), CacheError> {
        let whole = [PathBuf::new()];
        let (there, absent): (Vec<&PathBuf>, Vec<&PathBuf>) =
            external.parts.iter().partition(|part| external.path.join(part).exists());
        for part in absent {
            let path = external.path.join(part).to_string_lossy().into_owned().into();
            self.watched.push(Watched { path, expected: Expected::Absent });
        }
        let all = external.parts.is_empty()
            || (external.absent == Absent::Whole && there.is_empty() && external.path.is_dir());
        let parts = if all { whole.iter().collect() } else { there };
        let mut files = Vec::new();
        for part in parts {
            let path =
                if part.as_os_str().is_empty() { external.path.clone() } else { external.path.join(part) };
            let listing = Listing::read(&path, &cache.layout, stats).map_err(|error| {
                if path.exists() || path.is_symlink() {
                    return error;
                }
                let folder = std::env::current_dir().unwrap_or_default();
                CacheError::NotThere { parameter: external.parameter, path: path.clone(), folder }
            })?;
            self.watched.extend_from_slice(listing.watched());
            // A file is listed by its name, the files of a folder relative to it.
            let folder = if path.is_file() { part.parent().unwrap_or(Path::new("")) } else { part };
            files.extend(listing.entries.iter().map(|entry| ExternalFile {
                path: slashed(&folder.join(&entry.path)),
                digest: entry.digest,
                size: entry.size,
            }));
            let name = if part.as_os_str().is_empty() {
                external.name.to_string()
            } else {
                format!("{}/{}", external.name, slashed(part))
            };
            self.listings.push((name, Arc::new(listing)));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let root = if external.path.is_file() {
            external.path.parent().unwrap_or(Path::new("")).to_owned()
        } else {
            external.path.clone()
        };
        self.files.insert(external.name.to_string(), ExternalFiles { root, files });
        Ok(())
    }

    pub fn manifest_records(&self) -> BTreeMap<String, ExternalRecord> {
        let record = |listing: &Listing| ExternalRecord { digest: listing.tree_digest() };
        self.listings.iter().map(|(name, listing)| (name.clone(), record(listing))).collect()
    }

    /// Keeps the listings, so that a later run can tell which file changed.
    pub fn store(&self, cache: &Cache) -> Result<(), CacheError> {
        self.listings.iter().try_for_each(|(_, listing)| listing.store(&cache.store).map(|_| ()))
    }

    /// Paths that are no longer as they were hashed.
    pub fn moved(&self, cache: &Cache) -> Result<Vec<String>, CacheError> {
        let mut moved = Vec::new();
        for (name, listing) in &self.listings {
            moved.extend(listing.moved(&cache.layout)?.into_iter().map(|path| format!("{name}: {path}")));
        }
        Ok(moved)
    }

    pub fn watched(&self) -> &[Watched<'static>] {
        &self.watched
    }

    /// Content and path of every file.
    pub fn sources(&self) -> Vec<(Digest, PathBuf)> {
        let all = self.files.values().flat_map(|files| files.files.iter().map(move |file| (files, file)));
        all.map(|(files, file)| (file.digest, files.root.join(&file.path))).collect()
    }

    pub fn files(&self) -> &BTreeMap<String, ExternalFiles> {
        &self.files
    }
}

fn slashed(path: &Path) -> String {
    path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Where files can be read, by their content: external files of this run, else objects of the cache.
#[derive(Default)]
pub struct Sources {
    paths: Mutex<HashMap<Digest, PathBuf>>,
    later: Mutex<Option<Later>>,
}

type Later = Box<dyn FnOnce() -> Vec<(Digest, PathBuf)> + Send>;

impl Sources {
    pub fn add(&self, sources: impl IntoIterator<Item = (Digest, PathBuf)>) {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).extend(sources);
    }

    /// More of them, asked for when a file is not among the others.
    pub fn add_later(&self, more: impl FnOnce() -> Vec<(Digest, PathBuf)> + Send + 'static) {
        *self.later.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(more));
    }

    fn path(&self, digest: &Digest) -> Option<PathBuf> {
        let find = || self.paths.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        find().or_else(|| {
            // Others wait until they are there.
            let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(more) = later.take() {
                self.add(more());
            }
            find()
        })
    }

    /// A file that holds exactly this content now.
    pub fn find(&self, digest: &Digest, cache: &Cache, stats: &StatCache) -> Option<PathBuf> {
        let external = self.path(digest);
        let unchanged = |path: &PathBuf| stats.digest_file(path).is_ok_and(|hashed| hashed.digest == *digest);
        let stored = || cache.store.contains(digest).then(|| cache.store.object_path(digest));
        external.filter(unchanged).or_else(stored)
    }
}
