//! Which objects a tree stands for, as far as they can be read.

use crate::digest::Digest;
use crate::error::CacheError;
use crate::store::Store;
use crate::tree::TreeEntry;

/// What a tree says of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// They are in the store: the tree is an output.
    Stored,
    /// They lie with the user: the tree is a listing.
    Elsewhere,
}

impl Store {
    /// Visits the objects below the tree `root`, itself first. `enter` is asked before each folder and
    /// says whether to go into it; `file` is told each file of a stored tree with its size.
    ///
    /// A tree that is missing or damaged is passed over, with what it alone would name; an error is
    /// only what leaves open what it names.
    pub(crate) fn reach(
        &self,
        root: &Digest,
        files: Files,
        enter: &mut dyn FnMut(&Digest) -> bool,
        file: &mut dyn FnMut(&Digest, u64),
    ) -> Result<(), CacheError> {
        let mut folders = vec![*root];
        while let Some(folder) = folders.pop() {
            if !enter(&folder) {
                continue;
            }
            let tree = match self.get_tree(&folder) {
                Err(error) if error.is_miss() => continue,
                result => result?,
            };
            for (_, entry) in tree.entries() {
                match entry {
                    TreeEntry::Dir { digest } => folders.push(*digest),
                    TreeEntry::File { digest, size, .. } if files == Files::Stored => file(digest, *size),
                    TreeEntry::File { .. } => {}
                }
            }
        }
        Ok(())
    }
}
