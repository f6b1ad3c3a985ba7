//! BLAKE3 digests of bytes and files. Knows nothing of where they are stored.
//!
//! Large files are hashed in parallel by reading, not by mapping: a mapped file that somebody
//! truncates kills the process with SIGBUS, a read returns an error. Each thread reads one leaf of
//! the BLAKE3 tree into a buffer that stays in its cache, which measures as fast as a parallel map.

use crate::error::{CacheError, Doing};
use crate::stat::FileStat;
use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};
use fs_err::File;
use fs_err::os::unix::fs::FileExt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io::{self, Read};
use std::{cell::RefCell, fmt, path::Path, str::FromStr, time::Duration};

/// BLAKE3 hash of some bytes: the name of an object. Written as 64 lower-case hex digits, in binary formats as 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Hashes `bytes` on this thread.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The first twelve hex digits, for messages.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = CacheError;

    /// Reads exactly 64 lower-case hex digits: a digest has one spelling, since it names files.
    fn from_str(text: &str) -> Result<Self, CacheError> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(CacheError::malformed("a digest", format!("{text:?} has capital letters")));
        }
        let hash = blake3::Hash::from_hex(text)
            .map_err(|error| CacheError::malformed("a digest", format!("{text:?}: {error}")))?;
        Ok(Self(*hash.as_bytes()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 32]>::deserialize(deserializer).map(Self);
        }
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Files from this size on are hashed by several threads.
const PARALLEL_SIZE: u64 = 128 * 1024;
/// What one thread reads and hashes at once: fits its L2 cache. A power of two chunks of BLAKE3.
const LEAF_SIZE: u64 = 256 * 1024;
/// How often a file that changes under the hash is tried again, with a pause that doubles.
const ATTEMPTS: u32 = 5;

/// Hashes a regular file, large ones on all threads of the current rayon pool.
///
/// Follows symbolic links. The file's stat must be the same before and after: else it is hashed
/// again, and after five attempts the error is [`CacheError::Busy`].
pub fn hash_file(path: &Path) -> Result<Digest, CacheError> {
    hash_stable(path).map(|(digest, _)| digest)
}

/// [`hash_file`], with the stat that the digest belongs to.
pub(crate) fn hash_stable(path: &Path) -> Result<(Digest, FileStat), CacheError> {
    hash_stable_by(path, hash_open)
}

/// [`hash_stable`] with the hashing passed in, so that a test can change the file meanwhile.
pub(crate) fn hash_stable_by(
    path: &Path,
    mut hash: impl FnMut(&File, u64) -> io::Result<Option<Digest>>,
) -> Result<(Digest, FileStat), CacheError> {
    const ACTION: &str = "hash a file";
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(2 << (2 * attempt)));
        }
        // Before opening: to open a named pipe would wait for its writer.
        let before = FileStat::following(path).doing(ACTION)?;
        if !before.is_file() {
            return Err(CacheError::UnsupportedFile { path: path.to_owned(), found: before.kind() });
        }
        let file = File::open(path).doing(ACTION)?;
        let Some(digest) = hash(&file, before.size).doing(ACTION)? else { continue };
        // By path: a file put in this one's place has another inode or, renamed, another ctime.
        if FileStat::following(path).doing(ACTION)? == before {
            return Ok((digest, before));
        }
    }
    Err(CacheError::Busy { path: path.to_owned(), attempts: ATTEMPTS })
}

/// Hashes the `size` bytes of `file`; `None` when it turns out to be shorter or longer.
pub(crate) fn hash_open(file: &File, size: u64) -> io::Result<Option<Digest>> {
    if size < PARALLEL_SIZE {
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(size + 1).read_to_end(&mut bytes)?;
        return Ok((bytes.len() as u64 == size).then(|| Digest::of_bytes(&bytes)));
    }
    let left_size = hazmat::left_subtree_len(size);
    let (left, right) =
        rayon::join(|| subtree(file, 0, left_size), || subtree(file, left_size, size - left_size));
    let (left, right) = match (left, right) {
        (Ok(left), Ok(right)) => (left, right),
        (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let root = hazmat::merge_subtrees_root(&left, &right, Mode::Hash);
    Ok(Some(Digest(*root.as_bytes())))
}

/// The chaining value of `size` bytes from `offset`, split as the BLAKE3 tree splits them.
fn subtree(file: &File, offset: u64, size: u64) -> io::Result<ChainingValue> {
    thread_local! { static LEAF: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) }; }
    if size <= LEAF_SIZE {
        return LEAF.with_borrow_mut(|buffer| {
            buffer.resize(LEAF_SIZE as usize, 0);
            let leaf = &mut buffer[..size as usize];
            file.read_exact_at(leaf, offset)?;
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(offset).update(leaf);
            Ok(hasher.finalize_non_root())
        });
    }
    let left_size = hazmat::left_subtree_len(size);
    let (left, right) = rayon::join(
        || subtree(file, offset, left_size),
        || subtree(file, offset + left_size, size - left_size),
    );
    Ok(hazmat::merge_subtrees_non_root(&left?, &right?, Mode::Hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_hashes_to_the_same_digest_as_its_bytes_at_every_size_around_a_border() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let borders = [0, 1024, PARALLEL_SIZE, LEAF_SIZE, 2 * LEAF_SIZE, 3 * LEAF_SIZE, 1 << 20, 5 << 20];
        for border in borders {
            for size in [border.saturating_sub(1), border, border + 1] {
                let bytes: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
                fs_err::write(&path, &bytes).unwrap();
                assert_eq!(hash_file(&path).unwrap(), Digest::of_bytes(&bytes), "size {size}");
            }
        }
    }

    #[test]
    fn a_file_that_changes_each_time_it_is_hashed_is_busy() {
        for size in [10, 2 * PARALLEL_SIZE as usize] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("growing");
            fs_err::write(&path, vec![7; size]).unwrap();
            let mut append = fs_err::OpenOptions::new().append(true).open(&path).unwrap();
            let error = hash_stable_by(&path, |file, size| {
                let digest = hash_open(file, size);
                append.write_all(b"more")?;
                digest
            })
            .unwrap_err();
            assert!(matches!(error, CacheError::Busy { attempts: ATTEMPTS, .. }), "{error}");
        }
    }

    #[test]
    fn a_file_that_changes_once_under_the_hash_is_hashed_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settling");
        fs_err::write(&path, b"before").unwrap();
        let mut calls = 0;
        let (digest, stat) = hash_stable_by(&path, |file, size| {
            calls += 1;
            let digest = hash_open(file, size);
            if calls == 1 {
                fs_err::write(&path, b"after!")?;
            }
            digest
        })
        .unwrap();
        assert_eq!((digest, stat.size, calls), (Digest::of_bytes(b"after!"), 6, 2));
    }

    #[test]
    fn a_file_truncated_under_the_hash_is_an_error_and_not_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shrinking");
        fs_err::write(&path, vec![7; 4 << 20]).unwrap();
        let writer = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
        let mut size_now = 4 << 20;
        let error = hash_stable_by(&path, |file, size| {
            size_now /= 2;
            writer.set_len(size_now)?;
            hash_open(file, size)
        })
        .unwrap_err();
        assert!(matches!(error, CacheError::Busy { .. }), "{error}");
    }

    #[test]
    fn a_folder_or_a_pipe_is_not_hashed() {
        let dir = tempfile::tempdir().unwrap();
        let error = hash_file(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is a folder"), "{error}");
        let error = hash_file(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(error.contains("is a device"), "{error}");
    }

    #[test]
    fn a_digest_has_one_spelling() {
        let digest = Digest::of_bytes(b"x");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        for wrong in
            ["", "00", &digest.to_string().to_uppercase(), &format!("{digest}0"), &format!(" {digest}")]
        {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong:?}");
        }
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{digest}\""));
    }
}
