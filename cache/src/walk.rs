//! Trees with all their folders: reads them, lists them, checks them.

use crate::digest::Digest;
use crate::error::CacheError;
use crate::store::Store;
use crate::tree::{Tree, TreeEntry};
use std::collections::HashMap;
use std::sync::Arc;

/// One file of a tree, with its path from the root of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Relative path, its names joined by `/`.
    pub path: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Bytes of the content.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// One step of a walk through a tree.
pub(crate) enum Node<'a> {
    Folder(&'a Tree),
    File { digest: Digest, size: u64, executable: bool },
}

/// Deepest tree that is read. A path of more names is too long to be opened.
const MAX_HEIGHT: usize = 256;
/// Most files and folders of a tree that is read: sixty trees that name each other twice stand for
/// more than any disk holds.
const MAX_ENTRIES: u64 = 1 << 24;

/// The trees below a root, each read once, however often it occurs.
#[derive(Default)]
struct Forest {
    trees: HashMap<Digest, Grown>,
}

struct Grown {
    tree: Arc<Tree>,
    /// Levels of folders, itself included.
    height: usize,
    /// Files and folders below, counted as often as they occur.
    entries: u64,
}

impl Store {
    /// All files of a tree, depth first, the names of each folder in byte order.
    pub fn tree_entries(&self, tree: &Digest) -> Result<Vec<TreeFile>, CacheError> {
        let mut found = Vec::new();
        self.walk(tree, &mut |path, node| {
            if let Node::File { digest, size, executable } = node {
                found.push(TreeFile { path: path.to_owned(), digest, size, executable });
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Whether every object of a tree is there and passes [`Store::check`]; the error names the first that is not.
    pub fn check_tree(&self, tree: &Digest) -> Result<(), CacheError> {
        self.walk(tree, &mut |path, node| match node {
            Node::File { digest, size, .. } => self.check_file(path, &digest, size),
            Node::Folder(_) => Ok(()),
        })
    }

    /// Visits a tree, folders before what they hold; the root has an empty path. All trees are read
    /// before the first visit, so a missing or oversized one stops the walk before it has done anything.
    pub(crate) fn walk(
        &self,
        root: &Digest,
        visit: &mut dyn FnMut(&str, Node<'_>) -> Result<(), CacheError>,
    ) -> Result<(), CacheError> {
        let mut forest = Forest::default();
        self.grow(root, 1, &mut forest)?;
        forest.visit(root, "", visit)
    }

    /// Reads the trees below `digest`; returns its height and entries.
    fn grow(&self, digest: &Digest, depth: usize, forest: &mut Forest) -> Result<(usize, u64), CacheError> {
        if let Some(grown) = forest.trees.get(digest) {
            return Ok((grown.height, grown.entries));
        }
        let refused = |reason| Err(CacheError::CorruptObject { digest: *digest, reason });
        if depth > MAX_HEIGHT {
            return refused(format!("as a tree: it is deeper than {MAX_HEIGHT} folders"));
        }
        let tree = self.get_tree(digest)?;
        let (mut height, mut entries) = (1, tree.entries().len() as u64);
        for (_, entry) in tree.entries() {
            if let TreeEntry::Dir { digest } = entry {
                let below = self.grow(digest, depth + 1, forest)?;
                height = height.max(1 + below.0);
                entries = entries.saturating_add(below.1);
            }
        }
        if height > MAX_HEIGHT || entries > MAX_ENTRIES {
            return refused(format!("as a tree: {height} levels of {entries} entries exceed the limits"));
        }
        forest.trees.insert(*digest, Grown { tree, height, entries });
        Ok((height, entries))
    }
}

impl Forest {
    fn visit(
        &self,
        digest: &Digest,
        path: &str,
        visit: &mut dyn FnMut(&str, Node<'_>) -> Result<(), CacheError>,
    ) -> Result<(), CacheError> {
        let tree = &self.trees[digest].tree;
        visit(path, Node::Folder(tree))?;
        for (name, entry) in tree.entries() {
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            match *entry {
                TreeEntry::File { digest, size, executable } => {
                    visit(&path, Node::File { digest, size, executable })?;
                }
                TreeEntry::Dir { digest } => self.visit(&digest, &path, visit)?,
            }
        }
        Ok(())
    }
}
