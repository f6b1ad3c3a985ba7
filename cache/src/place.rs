//! Making a folder of the user, such as `results/train`, equal to a tree.
//!
//! Keeps records of what was placed where, and by which pipeline; never removes what it did not place.

use crate::digest::Digest;
use crate::error::{CacheError, Doing};
use crate::files::{self, LINK_SIZE, Placer};
use crate::lock;
use crate::record::Found;
use crate::stat::{FileStat, kind_of};
use crate::stat_cache::StatCache;
use crate::store::{Store, object_stat};
use crate::walk::{Node, TreeFile};
use crate::watch::{Expected, Watched};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

mod standing;

pub(crate) use standing::{Files, PlaceRecord, Standing};

const ACTION: &str = "place results";

/// Whose results a folder holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Owner<'a> {
    /// The file that says what is placed, so that another file is told before it places there.
    pub file: &'a str,
    /// All subfolders that the file still stands for; `None` where it is not known.
    pub names: Option<&'a BTreeSet<String>>,
}

/// What [`Store::place`] did, as paths relative to the folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placed {
    /// Files that were absent, tampered with or of an earlier tree, and now hold what the tree says.
    pub written: Vec<String>,
    /// Files of an earlier tree that are not in this one, removed.
    pub removed: Vec<String>,
    /// Files of an earlier tree that are not in this one, left because somebody edited them.
    pub left: Vec<String>,
    /// Files that somebody made or edited where a file of the tree had to go, by the names under which they are kept.
    pub kept: Vec<String>,
    /// Subfolders that were placed for the owner before, hold something, and are none of its any more.
    pub stale: Vec<String>,
    /// Name of each tree → the paths of all its files, relative to its subfolder.
    pub stand: BTreeMap<String, Vec<String>>,
}

impl Placed {
    /// Whether the folder was as it should be.
    pub fn nothing_to_do(&self) -> bool {
        self.written.is_empty() && self.removed.is_empty()
    }
}

impl Store {
    /// Makes each named subfolder of `folder` hold its tree: writes what is absent or differs, and
    /// removes the files of the tree that was placed there before, unless somebody has edited them.
    /// Subfolders that are not named stay as they are. An empty name is the folder itself.
    ///
    /// Files that were never placed stay; one that stands where a folder must go is an error
    /// ([`CacheError::InTheWay`]), one that stands where a file must go is kept under another name, as a tampered
    /// file is: see [`Placed::kept`]. A symbolic link below `folder` is replaced and never followed. Files are read-only:
    /// reflinks, else copies below 64 KiB, else hard links, else copies.
    pub fn place(
        &self,
        trees: &BTreeMap<String, Digest>,
        folder: &Path,
        owner: Owner<'_>,
        stats: &StatCache,
    ) -> Result<Placed, CacheError> {
        let (folder, place) = place_of(folder)?;
        let _claim = lock::wait_for(&self.layout, &place).doing(ACTION)?;
        let record_path = self.layout.placed(&place);
        // A lost record costs tidiness, not safety: what it listed counts as foreign from now on.
        let mut record = match PlaceRecord::read_of(&record_path, |name| trees.contains_key(name))? {
            Found::Record(record) => record,
            Found::Absent | Found::Corrupt(_) => PlaceRecord::default(),
        };
        let flat = trees
            .par_iter()
            .map(|(name, tree)| Ok((name.as_str(), self.flatten(tree)?)))
            .collect::<Result<Vec<_>, CacheError>>()?;
        let mut replaced: BTreeMap<&str, Files> = BTreeMap::new();
        for (name, (_, files)) in &flat {
            let tree = trees[*name];
            if !record.standing.get(*name).is_some_and(|standing| standing.is(&tree, files)) {
                let before = record.standing.remove(*name).map(|standing| standing.files).unwrap_or_default();
                let files = union(&before, files_of(files));
                record.standing.insert((*name).to_owned(), Standing { tree, files });
                replaced.insert(name, before);
            }
        }
        let told = (record.file.clone(), record.stale.clone());
        if !trees.is_empty() {
            owner.file.clone_into(&mut record.file);
        }
        if let Some(names) = owner.names {
            let stands = |name: &&String| !names.contains(*name) && folder.join(name).exists();
            record.stale = record.names.iter().filter(stands).cloned().collect();
        }
        if !replaced.is_empty() || told != (record.file.clone(), record.stale.clone()) {
            // First, so that a killed process leaves nothing that its successor takes for foreign.
            record.folder = folder.display().to_string();
            record.write(&self.layout, &record_path, replaced.keys().copied()).doing(ACTION)?;
        }
        fs_err::create_dir_all(&folder).doing(ACTION)?;
        let placed = flat
            .par_iter()
            .map(|(name, (folders, files))| {
                let subfolder = folder.join(name);
                let placing = Placing { store: self, stats, root: &folder, folder: &subfolder };
                let mut placed = Placed::default();
                if let Some(before) = replaced.get(name) {
                    let stays: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
                    placing.remove_stale(before, &stays, &mut placed)?;
                }
                placing.make_folders(name, folders)?;
                let standing = record.standing.get(*name).map(|standing| &standing.files);
                placing.write_files(files, standing, &mut placed)?;
                for paths in [&mut placed.written, &mut placed.removed, &mut placed.left, &mut placed.kept] {
                    for path in paths.iter_mut().filter(|_| !name.is_empty()) {
                        path.insert_str(0, &format!("{name}/"));
                    }
                }
                Ok(placed)
            })
            .collect::<Result<Vec<_>, CacheError>>()?;
        let mut tidied = Vec::new();
        for (name, (_, files)) in flat.iter().filter(|(name, _)| replaced.contains_key(name)) {
            let standing = record.standing.get_mut(*name).expect("it was inserted above");
            let now = files_of(files);
            if standing.files != now {
                standing.files = now;
                tidied.push(*name);
            }
        }
        if !tidied.is_empty() {
            record.write(&self.layout, &record_path, tidied.iter().copied()).doing(ACTION)?;
        }
        Ok(Placed {
            written: placed.iter().flat_map(|placed| placed.written.clone()).collect(),
            removed: placed.iter().flat_map(|placed| placed.removed.clone()).collect(),
            left: placed.iter().flat_map(|placed| placed.left.clone()).collect(),
            kept: placed.iter().flat_map(|placed| placed.kept.clone()).collect(),
            stale: record.stale.into_iter().collect(),
            stand: flat
                .iter()
                .map(|(name, (_, files))| {
                    ((*name).to_owned(), files.iter().map(|file| file.path.clone()).collect())
                })
                .collect(),
        })
    }

    /// The file whose results were placed in a folder last, if that is on record.
    pub fn owner(&self, folder: &Path) -> Result<Option<String>, CacheError> {
        let path = self.layout.placed(&place_of(folder)?.1);
        Ok(match PlaceRecord::read_last(&path)? {
            Found::Record(record) if !record.file.is_empty() => Some(record.file),
            _ => None,
        })
    }

    /// Removes what stands in the subfolders that the owner of a folder no longer has, and was not edited. Returns the
    /// paths of what is left, as they are: files that somebody edited.
    pub(crate) fn remove_stale(&self, place: &Digest, stats: &StatCache) -> Result<Vec<String>, CacheError> {
        let _claim = lock::wait_for(&self.layout, place).doing(ACTION)?;
        let path = self.layout.placed(place);
        let Found::Record(mut record) = PlaceRecord::read(&path)? else { return Ok(Vec::new()) };
        let (root, stale) = (PathBuf::from(&record.folder), std::mem::take(&mut record.stale));
        let mut left = Vec::new();
        for name in &stale {
            let Some(standing) = record.standing.remove(name) else { continue };
            let folder = root.join(name);
            let placing = Placing { store: self, stats, root: &root, folder: &folder };
            let mut placed = Placed::default();
            // A link on the way would lead out of the folder.
            if are_folders(&root, Path::new(name).ancestors()) {
                placing.remove_stale(&standing.files, &BTreeSet::new(), &mut placed)?;
                remove_empty(&root, Path::new(name));
            }
            left.extend(placed.left.iter().map(|path| folder.join(path).display().to_string()));
        }
        record.write(&self.layout, &path, stale.iter().map(String::as_str)).doing(ACTION)?;
        Ok(left)
    }

    /// What to expect of placed files, by their paths below `folder`, from now on. A file that was written to since it
    /// was placed is not settled.
    pub fn watch_placed(&self, folder: &Path, paths: &[&String], stats: &StatCache) -> Vec<Watched<'static>> {
        let stat = |path: &&String| std::fs::symlink_metadata(folder.join(path)).ok();
        let newest = paths.par_iter().filter_map(stat).map(|found| FileStat::of(&found).changed).max();
        // Else a write in this very moment could leave the same stat.
        let settled = newest.is_none_or(|newest| stats.wait_past(newest));
        let watch = |path: &&String| {
            let found = stat(path).filter(|found| settled && found.is_file() && files::is_sealed(found));
            let expected = found.map_or(Expected::Unsettled, |found| Expected::Is(FileStat::of(&found)));
            Watched { path: (*path).clone().into(), expected }
        };
        paths.par_iter().map(watch).collect()
    }

    /// The folders of a tree, parents first, and its files.
    fn flatten(&self, tree: &Digest) -> Result<(Vec<String>, Vec<TreeFile>), CacheError> {
        let (mut folders, mut tree_files) = (Vec::new(), Vec::new());
        self.walk(tree, &mut |path, node| {
            match node {
                Node::Folder(_) => folders.push(path.to_owned()),
                Node::File { digest, size, executable } => {
                    tree_files.push(TreeFile { path: path.to_owned(), digest, size, executable });
                }
            }
            Ok(())
        })?;
        Ok((folders, tree_files))
    }
}

struct Placing<'a> {
    store: &'a Store,
    stats: &'a StatCache,
    /// Where all subfolders lie.
    root: &'a Path,
    folder: &'a Path,
}

impl Placing<'_> {
    fn remove_stale(
        &self,
        before: &Files,
        stays: &BTreeSet<&str>,
        placed: &mut Placed,
    ) -> Result<(), CacheError> {
        for (path, digests) in before {
            // A link on the way would lead out of the folder.
            if stays.contains(path.as_str()) || !self.is_inside(path) {
                continue;
            }
            let file = self.folder.join(path);
            let Ok(metadata) = fs_err::symlink_metadata(&file) else { continue };
            if !metadata.is_file() || !digests.contains(&self.stats.digest_file(&file)?.digest) {
                placed.left.push(path.clone());
                continue;
            }
            fs_err::remove_file(&file).doing(ACTION)?;
            placed.removed.push(path.clone());
            remove_empty(self.folder, Path::new(path).parent().unwrap_or(Path::new("")));
        }
        Ok(())
    }

    /// Whether all folders on the way to `path` are folders.
    fn is_inside(&self, path: &str) -> bool {
        are_folders(self.folder, Path::new(path).ancestors().skip(1))
    }

    /// The folders on the way to the subfolder `name`, and those of its tree.
    fn make_folders(&self, name: &str, folders: &[String]) -> Result<(), CacheError> {
        let mut on_the_way: Vec<&Path> =
            Path::new(name).ancestors().filter(|parent| !parent.as_os_str().is_empty()).collect();
        on_the_way.reverse();
        on_the_way.iter().try_for_each(|path| make_folder(&self.root.join(path)))?;
        let below = folders.iter().filter(|path| !path.is_empty());
        below.into_iter().try_for_each(|path| make_folder(&self.folder.join(path)))
    }

    fn write_files(
        &self,
        tree_files: &[TreeFile],
        standing: Option<&Files>,
        placed: &mut Placed,
    ) -> Result<(), CacheError> {
        let differing = self.differing(tree_files)?;
        for file in differing {
            let path = self.folder.join(&file.path);
            let ours = standing.and_then(|files| files.get(&file.path)).map_or(&[][..], Vec::as_slice);
            if let Some(name) = self.keep_edited(&path, file, ours)? {
                placed.kept.push(Path::new(&file.path).with_file_name(name).to_string_lossy().into_owned());
            }
            let write = |object: &Path| self.write(file, object, &path);
            self.store.place_checked(&file.path, &file.digest, file.size, write)?.doing(ACTION)?;
            placed.written.push(file.path.clone());
        }
        Ok(())
    }

    /// Gives a file that holds nothing of ours another name, and returns that.
    fn keep_edited(
        &self,
        path: &Path,
        file: &TreeFile,
        ours: &[Digest],
    ) -> Result<Option<String>, CacheError> {
        if !std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
            return Ok(None);
        }
        let found = match self.stats.digest_file(path) {
            Ok(hashed) => hashed.digest,
            // What cannot be read cannot be shown to be ours.
            Err(_) => Digest([0; 32]),
        };
        if found == file.digest || ours.contains(&found) {
            return Ok(None);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let names =
            (1..).map(
                |count| if count == 1 { format!("{name}.edited") } else { format!("{name}.edited-{count}") },
            );
        for kept in names {
            // Never over another file; the name that is taken goes when the new file is renamed over it.
            match std::fs::hard_link(path, path.with_file_name(&kept)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Ok(()) => return Ok(Some(kept)),
                Err(_) => {
                    fs_err::copy(path, path.with_file_name(&kept)).doing(ACTION)?;
                    return Ok(Some(kept));
                }
            }
        }
        Ok(None)
    }

    /// The files that do not stand in the folder with the right content and executable bit.
    fn differing<'f>(&self, tree_files: &'f [TreeFile]) -> Result<Vec<&'f TreeFile>, CacheError> {
        let mut differing = Vec::new();
        let mut unsure = Vec::new();
        for file in tree_files {
            let path = self.folder.join(&file.path);
            let Ok(metadata) = std::fs::symlink_metadata(&path) else {
                differing.push(file);
                continue;
            };
            if metadata.is_dir() {
                remove_empty_dir(&path)?;
                differing.push(file);
                continue;
            }
            let stat = FileStat::of(&metadata);
            let same_kind = stat.is_file() && (stat.mode & 0o100 != 0) == file.executable;
            if !same_kind || stat.size != file.size {
                differing.push(file);
            } else if self.is_object(&stat, file) {
                // A hard link: whoever wrote to it wrote to the object, which the check sees.
                if !self.object_is_whole(file)? {
                    differing.push(file);
                }
            } else {
                unsure.push((file, path));
            }
        }
        let paths: Vec<PathBuf> = unsure.iter().map(|(_, path)| path.clone()).collect();
        for ((file, _), hashed) in unsure.iter().zip(self.stats.digest_files(&paths)) {
            if hashed?.digest != file.digest {
                differing.push(file);
            }
        }
        Ok(differing)
    }

    fn is_object(&self, stat: &FileStat, file: &TreeFile) -> bool {
        object_stat(self.store, &file.digest)
            .is_some_and(|object| (object.device, object.inode) == (stat.device, stat.inode))
    }

    fn object_is_whole(&self, file: &TreeFile) -> Result<bool, CacheError> {
        match self.store.check(&file.digest, file.size) {
            Err(error) if error.is_miss() => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Makes the file beside and renames it over what is there.
    fn write(&self, file: &TreeFile, object: &Path, path: &Path) -> io::Result<()> {
        match self.write_by(self.store.layout.temporary(), file, object, path) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                self.write_by(path.parent().unwrap_or(self.folder).to_owned(), file, object, path)
            }
            result => result,
        }
    }

    fn write_by(&self, beside: PathBuf, file: &TreeFile, object: &Path, path: &Path) -> io::Result<()> {
        let made = tempfile::Builder::new().prefix(".pipe-").rand_bytes(22).make_in(beside, |beside| {
            if file.size < LINK_SIZE {
                Placer::copy(object, beside, file.executable)
            } else {
                self.store.outside.place(object, beside, file.executable)
            }
        })?;
        // To rename one hard link over another of the same inode does nothing: dropping `made` removes it then.
        fs_err::rename(made.path(), path)
    }
}

/// A folder of that name; a link of that name goes, what it leads to stays.
fn make_folder(folder: &Path) -> Result<(), CacheError> {
    match std::fs::create_dir(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(_) => return fs_err::create_dir(folder).doing(ACTION),
    }
    match fs_err::symlink_metadata(folder) {
        Ok(stat) if stat.is_dir() => Ok(()),
        Ok(stat) if stat.is_symlink() => {
            fs_err::remove_file(folder).and_then(|()| fs_err::create_dir(folder)).doing(ACTION)
        }
        Ok(stat) => Err(CacheError::InTheWay { path: folder.to_owned(), found: kind_of(stat.file_type()) }),
        Err(error) => Err(error).doing(ACTION),
    }
}

/// A folder as it is known in records, and the digest that names its record.
fn place_of(folder: &Path) -> Result<(PathBuf, Digest), CacheError> {
    let folder = std::path::absolute(folder).doing(ACTION)?;
    let place = Digest::of_bytes(folder.as_os_str().as_encoded_bytes());
    Ok((folder, place))
}

/// Whether these paths below `root` are folders, and no links to such.
fn are_folders<'p>(root: &Path, mut paths: impl Iterator<Item = &'p Path>) -> bool {
    paths.all(|path| {
        path.as_os_str().is_empty()
            || std::fs::symlink_metadata(root.join(path)).is_ok_and(|stat| stat.is_dir())
    })
}

/// Removes the folder `path` below `root` and those above it, up to the first that is not empty.
fn remove_empty(root: &Path, path: &Path) {
    let folders = path.ancestors().filter(|folder| !folder.as_os_str().is_empty());
    for folder in folders {
        if std::fs::remove_dir(root.join(folder)).is_err() {
            break;
        }
    }
}

fn files_of(files: &[TreeFile]) -> Files {
    files.iter().map(|file| (file.path.clone(), vec![file.digest])).collect()
}

/// Everything that either lists.
fn union(before: &Files, mut after: Files) -> Files {
    for (path, digests) in before {
        let known = after.entry(path.clone()).or_default();
        let missing: Vec<_> = digests.iter().filter(|digest| !known.contains(digest)).copied().collect();
        known.extend(missing);
    }
    after
}

/// A folder that stands where a file must go is ours to remove only when it is empty.
fn remove_empty_dir(path: &Path) -> Result<(), CacheError> {
    match fs_err::remove_dir(path) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
            Err(CacheError::InTheWay { path: path.to_owned(), found: "folder" })
        }
        result => result.doing(ACTION),
    }
}
