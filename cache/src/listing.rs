//! The content of folders and files outside of the cache: hashed and listed, never copied.

use crate::digest::Digest;
use crate::error::{CacheError, Doing};
use crate::ingest::plain_name;
use crate::layout::Layout;
use crate::stat::FileStat;
use crate::stat_cache::StatCache;
use crate::store::Store;
use crate::tree::{Tree, TreeEntry, check_relative_path};
use crate::walk::TreeFile;
use crate::watch::{Expected, Watched};
use rayon::prelude::*;
use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

const ACTION: &str = "list external files";

/// One external file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Path relative to the root, its names joined by `/`.
    pub path: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Bytes of the content.
    pub size: u64,
}

/// The files of an external input, by relative path.
///
/// Its digest is that of a [`Tree`] with the same names in which no file is executable. Empty folders do
/// not count. Symbolic links are followed, as data sets are often linked together; a link into one of
/// its own parents is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by path, in byte order.
    pub entries: Vec<ListedFile>,
    root: PathBuf,
    whole_folder: bool,
    stats: Vec<FileStat>,
    watched: Vec<Watched<'static>>,
}

/// How one file differs between two listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Relative path.
    pub path: String,
    /// What became of it.
    pub kind: ChangeKind,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It is gone.
    Removed,
    /// It has other content.
    Changed,
}

impl Listing {
    /// Lists and hashes all files below `root`, or the one file `root`, which is listed by its name.
    ///
    /// A `.pipe` folder below `root` that `layout` owns is left out, and so are the results beside it and lock files:
    /// what a run writes must not be what it reads. What cannot be read, is no file
    /// or has a name that is not UTF-8 is an error that names the path.
    pub fn read(root: &Path, layout: &Layout, stats: &StatCache) -> Result<Self, CacheError> {
        let own = own_folders(layout);
        let mut folders = Vec::new();
        let found = find(root, &own, &mut |folder| {
            let (stat, settled) = stats.folder(folder).doing(ACTION)?;
            if folder == root || !own.contains(&(stat.device, stat.inode)) {
                folders.push(watched(folder, Expected::leads(stat, settled)));
            }
            Ok(stat)
        })?;
        let mut listing = Self::hash(root, true, found, stats)?;
        listing.watched.extend(folders);
        Ok(listing)
    }

    /// Lists and hashes `files`, each below `root`; their relative paths are what is listed.
    pub fn read_files(root: &Path, files: &[PathBuf], stats: &StatCache) -> Result<Self, CacheError> {
        let found = files
            .iter()
            .map(|path| {
                let outside = || CacheError::OutsideRoot { path: path.clone(), root: root.to_owned() };
                let relative = path.strip_prefix(root).map_err(|_| outside())?;
                let names = relative.iter().map(plain_name).collect::<Result<Vec<_>, _>>()?;
                if names.is_empty() {
                    return Err(outside());
                }
                Ok((names.join("/"), path.clone()))
            })
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        Self::hash(root, false, found, stats)
    }

    fn hash(
        root: &Path,
        whole_folder: bool,
        found: BTreeMap<String, PathBuf>,
        stats: &StatCache,
    ) -> Result<Self, CacheError> {
        let (names, paths): (Vec<String>, Vec<PathBuf>) = found.into_iter().unzip();
        let mut listing = Self {
            entries: Vec::new(),
            root: root.to_owned(),
            whole_folder,
            stats: Vec::with_capacity(paths.len()),
            watched: Vec::with_capacity(paths.len()),
        };
        for ((path, hashed), file) in names.into_iter().zip(stats.digest_files(&paths)).zip(&paths) {
            let hashed = hashed?;
            listing.watched.push(watched(file, Expected::leads(hashed.stat, hashed.settled)));
            listing.entries.push(ListedFile { path, digest: hashed.digest, size: hashed.stat.size });
            listing.stats.push(hashed.stat);
        }
        Ok(listing)
    }

    /// What must be as it is for the listing to be the same when it is read again.
    pub fn watched(&self) -> &[Watched<'static>] {
        &self.watched
    }

    /// The digest of the listing's tree: what enters a manifest.
    pub fn tree_digest(&self) -> Digest {
        self.build(&mut |tree| Ok(tree.digest())).expect("listed names were checked and hashing cannot fail")
    }

    /// Stores the trees of the listing, not the files, so that two listings can be compared later.
    pub fn store(&self, store: &Store) -> Result<Digest, CacheError> {
        self.build(&mut |tree| store.put_tree(tree))
    }

    /// The paths that are not as they were listed, by stat alone: to be asked after a command has run.
    ///
    /// Also sees a file that was changed and changed back, of which the digest would tell nothing.
    pub fn moved(&self, layout: &Layout) -> Result<Vec<String>, CacheError> {
        let listed: BTreeMap<&str, &FileStat> =
            self.entries.iter().map(|file| file.path.as_str()).zip(&self.stats).collect();
        let now = if self.whole_folder {
            find(&self.root, &own_folders(layout), &mut |folder| FileStat::following(folder).doing(ACTION))?
        } else {
            self.entries.iter().map(|file| (file.path.clone(), self.root.join(&file.path))).collect()
        };
        let mut moved: Vec<String> = now
            .par_iter()
            .filter(|(path, file)| {
                let stat = FileStat::following(file).ok();
                stat.is_none() || listed.get(path.as_str()).copied() != stat.as_ref()
            })
            .map(|(path, _)| path.clone())
            .collect();
        moved.extend(listed.keys().filter(|path| !now.contains_key(**path)).map(|path| (*path).to_owned()));
        moved.sort_unstable();
        Ok(moved)
    }

    /// The files as [`Store::tree_entries`] gives them for the stored listing.
    pub fn tree_files(&self) -> Vec<TreeFile> {
        let file = |file: &ListedFile| TreeFile {
            path: file.path.clone(),
            digest: file.digest,
            size: file.size,
            executable: false,
        };
        self.entries.iter().map(file).collect()
    }

    /// Makes the trees from the leaves up; `keep` is called once for each and gives its digest.
    fn build(&self, keep: &mut dyn FnMut(&Tree) -> Result<Digest, CacheError>) -> Result<Digest, CacheError> {
        #[derive(Default)]
        struct Folder<'a> {
            files: Vec<(&'a str, &'a ListedFile)>,
            folders: BTreeMap<&'a str, Folder<'a>>,
        }
        fn finish(
            folder: &Folder<'_>,
            keep: &mut dyn FnMut(&Tree) -> Result<Digest, CacheError>,
        ) -> Result<Digest, CacheError> {
            let mut tree = Tree::default();
            for (name, file) in &folder.files {
                let entry = TreeEntry::File { digest: file.digest, size: file.size, executable: false };
                tree.insert(*name, entry)?;
            }
            for (name, folder) in &folder.folders {
                tree.insert(*name, TreeEntry::Dir { digest: finish(folder, keep)? })?;
            }
            keep(&tree)
        }
        let mut root = Folder::default();
        for file in &self.entries {
            check_relative_path(&file.path)?;
            let (folders, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
            let folder = folders
                .split('/')
                .filter(|name| !name.is_empty())
                .fold(&mut root, |folder, name| folder.folders.entry(name).or_default());
            folder.files.push((name, file));
        }
        finish(&root, keep)
    }
}

/// Which files differ between two trees or listings, sorted by path.
pub fn diff_listing(old: &[TreeFile], new: &[TreeFile]) -> Vec<FileChange> {
    let by_path = |files: &[TreeFile]| -> BTreeMap<String, (Digest, bool)> {
        files.iter().map(|file| (file.path.clone(), (file.digest, file.executable))).collect()
    };
    let (old, new) = (by_path(old), by_path(new));
    let change = |path: &String, kind| FileChange { path: path.clone(), kind };
    let mut changes: Vec<FileChange> = old
        .iter()
        .filter_map(|(path, content)| match new.get(path) {
            None => Some(change(path, ChangeKind::Removed)),
            Some(now) => (now != content).then(|| change(path, ChangeKind::Changed)),
        })
        .chain(new.keys().filter(|path| !old.contains_key(*path)).map(|path| change(path, ChangeKind::Added)))
        .collect();
    changes.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    changes
}

/// Looks at a folder before its names are read.
type Look<'a> = dyn FnMut(&Path) -> Result<FileStat, CacheError> + 'a;

/// Relative path → path of every file below `root`.
fn find(root: &Path, own: &Own<'_>, look: &mut Look<'_>) -> Result<BTreeMap<String, PathBuf>, CacheError> {
    let stat = FileStat::following(root).doing(ACTION)?;
    if stat.is_file() {
        let name = plain_name(root.file_name().unwrap_or(OsStr::new("")))?;
        return Ok(BTreeMap::from([(name, root.to_owned())]));
    }
    let mut found = BTreeMap::new();
    find_below(root, "", &[], own, look, &mut found)?;
    Ok(found)
}

/// Device and inode of a folder: tells that a link has come back to it.
type FolderId = (u64, u64);

fn folder_id(folder: &Path) -> Option<FolderId> {
    FileStat::following(folder).ok().map(|stat| (stat.device, stat.inode))
}

/// The folders that runs write to, looked at when a folder is met: most listings are of one file.
type Own<'l> = LazyCell<Vec<FolderId>, Box<dyn FnOnce() -> Vec<FolderId> + 'l>>;

fn own_folders(layout: &Layout) -> Own<'_> {
    LazyCell::new(Box::new(|| {
        let results = layout.root().with_file_name("results");
        [layout.root(), &results].into_iter().filter_map(folder_id).collect()
    }))
}

/// The first bytes of a lock file.
const LOCK_FILE: &[u8] = b"# pipe lock file";

fn is_lock_file(path: &Path) -> bool {
    let mut first = [0; LOCK_FILE.len()];
    if path.extension() != Some(OsStr::new("lock")) || !path.is_file() {
        return false;
    }
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut first));
    read.is_ok() && first == LOCK_FILE
}

fn find_below(
    folder: &Path,
    prefix: &str,
    parents: &[FolderId],
    own: &Own<'_>,
    look: &mut Look<'_>,
    found: &mut BTreeMap<String, PathBuf>,
) -> Result<(), CacheError> {
    let stat = look(folder)?;
    let id = (stat.device, stat.inode);
    if !prefix.is_empty() && own.contains(&id) {
        return Ok(());
    }
    if parents.contains(&id) {
        return Err(CacheError::LinkLoop { path: folder.to_owned() });
    }
    let parents = [parents, &[id]].concat();
    for entry in fs_err::read_dir(folder).doing(ACTION)? {
        let entry = entry.doing(ACTION)?;
        let name = plain_name(&entry.file_name())?;
        let path = entry.path();
        let relative = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let mut kind = entry.file_type().doing(ACTION)?;
        if kind.is_symlink() {
            kind = fs_err::metadata(&path).doing(ACTION)?.file_type();
        }
        if kind.is_dir() {
            find_below(&path, &relative, &parents, own, look, found)?;
        } else if !is_lock_file(&path) {
            // What is neither file nor folder is refused when it is hashed.
            found.insert(relative, path);
        }
    }
    Ok(())
}

/// A path that is not UTF-8 cannot be watched, and so is looked at each time.
fn watched(path: &Path, expected: Expected) -> Watched<'static> {
    match path.to_str() {
        Some(text) => Watched { path: text.to_owned().into(), expected },
        None => Watched { path: path.to_string_lossy().into_owned().into(), expected: Expected::Unsettled },
    }
}
