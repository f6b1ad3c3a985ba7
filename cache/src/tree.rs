//! A folder as one object: names and digests, one [`Tree`] a folder. Does no I/O.

use crate::digest::Digest;
use crate::error::CacheError;
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// One entry of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeEntry {
    /// A file.
    File {
        /// Digest of its content.
        digest: Digest,
        /// Bytes of its content.
        size: u64,
        /// Whether its owner may execute it. No other permission is kept.
        executable: bool,
    },
    /// A folder, by the digest of its own tree.
    Dir {
        /// Digest of the encoding of that tree.
        digest: Digest,
    },
}

/// One folder of a Merkle tree: a changed file changes the trees on its path and no others.
///
/// # Encoding
///
/// The digest of a tree is the BLAKE3 hash of these bytes, and the object of that name holds them:
///
/// ```text
/// tree    = "pipe-tree" version:u8=1 count:u32 entry*count
/// entry   = 'f' name digest:32 size:u64      a file
///         | 'x' name digest:32 size:u64      an executable file
///         | 'd' name digest:32               a folder; the digest is that of its tree
/// name    = length:u16 bytes                 UTF-8
/// ```
///
/// Integers are little-endian. Entries are in strictly ascending byte order of their names, so a
/// folder has one encoding. A name is one normal path component of 1 to 255 bytes: not `.` or
/// `..`, without `/` and NUL (on Windows also without `\` and drive letters). Nothing follows the
/// last entry. [`Tree::decode`] refuses whatever breaks a rule, as the bytes may come from a
/// remote; it can therefore not lead outside the folder it is written to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    entries: BTreeMap<String, TreeEntry>,
}

const MAGIC: &[u8] = b"pipe-tree\x01";
/// The shortest entry: kind, length, one byte of name, digest.
const ENTRY_MIN_SIZE: usize = 1 + 2 + 1 + 32;
/// Longest name, as on common file systems.
const NAME_MAX_SIZE: usize = 255;

impl Tree {
    /// Adds or replaces an entry, after checking its name.
    pub fn insert(&mut self, name: impl Into<String>, entry: TreeEntry) -> Result<(), CacheError> {
        let name = name.into();
        check_name(&name)?;
        self.entries.insert(name, entry);
        Ok(())
    }

    /// The entries in byte order of their names.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, &TreeEntry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The bytes that the tree's digest is taken of.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((self.entries.len() as u32).to_le_bytes());
        for (name, entry) in &self.entries {
            let (kind, digest, size) = match entry {
                TreeEntry::File { digest, size, executable: false } => (b'f', digest, Some(size)),
                TreeEntry::File { digest, size, executable: true } => (b'x', digest, Some(size)),
                TreeEntry::Dir { digest } => (b'd', digest, None),
            };
            bytes.push(kind);
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(digest.0);
            bytes.extend(size.into_iter().flat_map(|size| size.to_le_bytes()));
        }
        bytes
    }

    /// The digest of the encoding.
    pub fn digest(&self) -> Digest {
        Digest::of_bytes(&self.encode())
    }

    /// Reads an encoding; the error says which rule it breaks.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = Reader(bytes.strip_prefix(MAGIC).ok_or("not a tree of version 1")?);
        let count = u32::from_le_bytes(rest.array()?) as usize;
        if count > rest.0.len() / ENTRY_MIN_SIZE {
            return Err(format!("{count} entries cannot fit in {} bytes", rest.0.len()));
        }
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let [kind] = rest.array()?;
            let size = u16::from_le_bytes(rest.array()?);
            let name = std::str::from_utf8(rest.bytes(size.into())?).map_err(|_| "a name is not UTF-8")?;
            check_name(name).map_err(|error| error.to_string())?;
            let digest = Digest(rest.array()?);
            let entry = match kind {
                b'f' | b'x' => {
                    let size = u64::from_le_bytes(rest.array()?);
                    TreeEntry::File { digest, size, executable: kind == b'x' }
                }
                b'd' => TreeEntry::Dir { digest },
                other => return Err(format!("entry {name:?} is of unknown kind {other:#04x}")),
            };
            if entries.last_key_value().is_some_and(|(last, _): (&String, _)| last.as_str() >= name) {
                return Err(format!("entry {name:?} is out of order"));
            }
            entries.insert(name.to_owned(), entry);
        }
        if !rest.0.is_empty() {
            return Err(format!("{} bytes follow the last entry", rest.0.len()));
        }
        Ok(Self { entries })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, size: usize) -> Result<&'a [u8], String> {
        let (head, tail) = self.0.split_at_checked(size).ok_or("it ends in the middle of an entry")?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.bytes(N)?;
        Ok(bytes.try_into().expect("`bytes` returns as many as were asked for"))
    }
}

/// Refuses what is not one plain file name.
pub(crate) fn check_name(name: &str) -> Result<(), CacheError> {
    let unsafe_name = |reason| Err(CacheError::UnsafeName { name: name.to_owned(), reason });
    if name.len() > NAME_MAX_SIZE {
        return unsafe_name("it is longer than 255 bytes");
    }
    if name.contains('\0') {
        return unsafe_name("it holds a NUL byte");
    }
    // `components` drops a trailing `/` and `/.`, so the component must be the whole name.
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) if only == name => Ok(()),
        _ => unsafe_name("it is not one plain file name"),
    }
}

/// Refuses what is not a relative path of plain names joined by `/`.
pub(crate) fn check_relative_path(path: &str) -> Result<(), CacheError> {
    path.split('/').try_for_each(check_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> TreeEntry {
        TreeEntry::File { digest: Digest::of_bytes(content), size: content.len() as u64, executable: false }
    }

    #[test]
    fn the_encoding_is_pinned() {
        let mut tree = Tree::default();
        tree.insert("b.txt", file(b"beta")).unwrap();
        tree.insert("a", TreeEntry::Dir { digest: Tree::default().digest() }).unwrap();
        let run = TreeEntry::File { digest: Digest::of_bytes(b"#!"), size: 2, executable: true };
        tree.insert("run", run).unwrap();
        assert_eq!(tree.encode().len(), 14 + 36 + (40 + 8) + (38 + 8));
        // By an encoder in Python written from the doc comment, with the package `blake3` of PyPI.
        let pinned = [
            (Tree::default(), "7d5adf0fc6d80a80b881183daca67d19710a1177f2a3149fe93fca3f2e9aaed3"),
            (tree, "785d26d0959636e9543c1b198e0e31b5ba36bc038cd06f8c0da5b02530b6eaa7"),
        ];
        for (tree, digest) in pinned {
            assert_eq!(tree.digest().to_string(), digest, "a changed encoding needs objects-v2 and trees-v2");
        }
    }

    #[test]
    fn a_hostile_name_is_refused_when_written_and_when_read() {
        let long = "n".repeat(256);
        let hostile = ["", ".", "..", "/", "a/b", "a/", "/a", "../a", "a/..", "nul\0", "a/.", "./a", &long];
        for name in hostile {
            assert!(Tree::default().insert(name, file(b"")).is_err(), "written {name:?}");
            let mut tree = Tree::default();
            tree.entries.insert(name.to_owned(), file(b""));
            assert!(Tree::decode(&tree.encode()).is_err(), "read {name:?}");
        }
        for name in ["a", ".hidden", "...", "..a", "é", "a b", "a\\b", "-", &long[..255]] {
            let mut tree = Tree::default();
            tree.insert(name, file(b"")).unwrap();
            assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree, "{name:?}");
        }
    }

    #[test]
    fn a_tree_out_of_order_or_with_a_name_twice_is_refused() {
        let encode = |names: [&str; 2]| {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(2u32.to_le_bytes());
            for name in names {
                bytes.push(b'd');
                bytes.extend((name.len() as u16).to_le_bytes());
                bytes.extend(name.as_bytes());
                bytes.extend([0; 32]);
            }
            Tree::decode(&bytes)
        };
        assert!(encode(["a", "b"]).is_ok());
        assert!(encode(["b", "a"]).unwrap_err().contains("out of order"));
        assert!(encode(["a", "a"]).unwrap_err().contains("out of order"));
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_before_anything_is_allocated() {
        let bytes = [MAGIC, &u32::MAX.to_le_bytes()[..]].concat();
        assert!(Tree::decode(&bytes).unwrap_err().contains("cannot fit"));
    }

    #[test]
    fn every_truncation_and_every_appended_byte_is_refused() {
        let mut tree = Tree::default();
        tree.insert("a", file(b"alpha")).unwrap();
        tree.insert("b", TreeEntry::Dir { digest: Digest::of_bytes(b"") }).unwrap();
        let bytes = tree.encode();
        for size in 0..bytes.len() {
            assert!(Tree::decode(&bytes[..size]).is_err(), "{size} bytes");
        }
        assert!(Tree::decode(&[&bytes[..], b"\0"].concat()).is_err());
    }
}
