//! A file of parts that grows at its end: what changed is added, and now and then all of it is written anew.
//!
//! A part is a magic, its length, a hash and its bytes. The hash covers the hash of the part before, so a
//! part says something only after those that it was added to. Nothing after a part that is cut, damaged or
//! out of its place counts.

use crate::files;
use crate::layout::Layout;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Kind and version of a journal, at the beginning of every part.
pub type Magic = [u8; 16];

const HEADER: usize = 16 + 8 + 32;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    magic: &'static Magic,
    file: File,
    parts: Vec<Header>,
    /// Whether nothing follows the last part.
    whole: bool,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    /// Where its bytes begin.
    at: u64,
    length: u64,
    hash: [u8; 32],
}

impl Journal {
    /// Finds the parts of a file and reads none; `None` if there is no file.
    pub fn open(path: &Path, magic: &'static Magic) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let size = file.metadata()?.len();
        let (mut parts, mut at) = (Vec::new(), 0);
        while let Some(header) = read_header(&file, magic, at, size)? {
            at = header.at + header.length;
            parts.push(header);
        }
        Ok(Some(Self { path: path.to_owned(), magic, file, parts, whole: at == size }))
    }

    /// How many parts there are.
    pub fn count(&self) -> usize {
        self.parts.len()
    }

    /// Whether nothing follows the last part: else a process was killed while it wrote there.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Bytes from the given part to the last.
    pub fn size_from(&self, part: usize) -> u64 {
        self.parts.iter().skip(part).map(|header| header.length).sum()
    }

    /// The bytes of a part; `None` if it is damaged or not there.
    pub fn read(&self, part: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(header) = self.parts.get(part) else { return Ok(None) };
        let mut bytes = vec![0; header.length as usize];
        self.file.read_exact_at(&mut bytes, header.at)?;
        Ok((hash(self.last_hash(part), &bytes) == header.hash).then_some(bytes))
    }

    /// The hash before a part.
    fn last_hash(&self, part: usize) -> [u8; 32] {
        part.checked_sub(1).map_or([0; 32], |before| self.parts[before].hash)
    }

    /// Adds a part. `false`, and nothing is written, if the file is no longer what was opened, or not whole.
    pub fn append(&self, bytes: &[u8]) -> io::Result<bool> {
        let end = self.parts.last().map_or(0, |header| header.at + header.length);
        let mut file = match OpenOptions::new().append(true).open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            result => result?,
        };
        let (now, opened) = (file.metadata()?, self.file.metadata()?);
        if !self.whole || (now.dev(), now.ino()) != (opened.dev(), opened.ino()) || now.len() != end {
            return Ok(false);
        }
        let mut part = Vec::with_capacity(HEADER + bytes.len());
        write_part(&mut part, self.magic, self.last_hash(self.parts.len()), bytes);
        file.write_all(&part)?;
        Ok(true)
    }

    /// Writes a journal of these parts in place of what is there.
    pub fn replace(layout: &Layout, path: &Path, magic: &Magic, parts: &[&[u8]]) -> io::Result<()> {
        let size = parts.iter().map(|part| HEADER + part.len()).sum();
        let (mut bytes, mut last) = (Vec::with_capacity(size), [0; 32]);
        for part in parts {
            last = write_part(&mut bytes, magic, last, part);
        }
        files::replace(layout, path, &bytes)
    }
}

fn hash(last: [u8; 32], bytes: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(&last).update(bytes).finalize().as_bytes()
}

fn write_part(into: &mut Vec<u8>, magic: &Magic, last: [u8; 32], bytes: &[u8]) -> [u8; 32] {
    let hash = hash(last, bytes);
    into.extend(magic);
    into.extend((bytes.len() as u64).to_le_bytes());
    into.extend(hash);
    into.extend(bytes);
    hash
}

/// The header at `at`; `None` at the end, and where there is no whole part.
fn read_header(file: &File, magic: &Magic, at: u64, size: u64) -> io::Result<Option<Header>> {
    let begin = at + HEADER as u64;
    if size < begin {
        return Ok(None);
    }
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, at)?;
    let (found, rest) = header.split_first_chunk::<16>().expect("a header is longer");
    let (length, hash) = rest.split_first_chunk::<8>().expect("a header is longer");
    let length = u64::from_le_bytes(*length);
    if found != magic || length > size - begin {
        return Ok(None);
    }
    Ok(Some(Header { at: begin, length, hash: hash.try_into().expect("the rest is a hash") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: Magic = *b"test journal 1\n\0";

    struct Space(tempfile::TempDir);

    impl Space {
        fn new(parts: &[&[u8]]) -> Self {
            let space = Self(tempfile::tempdir().unwrap());
            let layout = Layout::new(space.0.path().join(".pipe"));
            layout.create().unwrap();
            Journal::replace(&layout, &space.path(), &MAGIC, parts).unwrap();
            space
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("journal")
        }

        fn open(&self) -> Journal {
            Journal::open(&self.path(), &MAGIC).unwrap().unwrap()
        }

        fn parts(&self) -> Vec<Option<Vec<u8>>> {
            let journal = self.open();
            (0..journal.count()).map(|part| journal.read(part).unwrap()).collect()
        }
    }

    fn some(parts: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        parts.iter().map(|part| Some(part.to_vec())).collect()
    }

    #[test]
    fn parts_read_back_with_those_that_were_added() {
        let space = Space::new(&[b"one", b""]);
        assert!(space.open().append(b"three").unwrap());
        assert!(space.open().append(b"four").unwrap());
        assert_eq!(space.parts(), some(&[b"one", b"", b"three", b"four"]));
        assert_eq!(space.open().size_from(1), 9);
    }

    #[test]
    fn of_two_that_add_to_the_same_state_the_second_is_refused() {
        let space = Space::new(&[b"one"]);
        let (first, second) = (space.open(), space.open());
        assert!(first.append(b"two").unwrap());
        assert!(!second.append(b"other").unwrap());
        // Another file in its place.
        let layout = Layout::new(space.0.path().join(".pipe"));
        let stale = space.open();
        Journal::replace(&layout, &space.path(), &MAGIC, &[b"one", b"two"]).unwrap();
        assert!(!stale.append(b"three").unwrap());
        assert_eq!(space.parts(), some(&[b"one", b"two"]));
    }

    #[test]
    fn a_part_counts_only_after_those_that_it_was_added_to() {
        let space = Space::new(&[b"one", b"two", b"three"]);
        let bytes = std::fs::read(space.path()).unwrap();
        let size = HEADER + 3;
        // As two processes that add at the same moment would leave it: the second part is of another past.
        std::fs::write(space.path(), [&bytes[..size], &bytes[2 * size..]].concat()).unwrap();
        assert_eq!(space.parts(), [Some(b"one".to_vec()), None]);
    }

    #[test]
    fn no_damage_reads_as_something_else() {
        let space = Space::new(&[b"one", b"two"]);
        let bytes = std::fs::read(space.path()).unwrap();
        for at in 0..bytes.len() {
            std::fs::write(space.path(), &bytes[..at]).unwrap();
            let journal = space.open();
            assert_eq!(space.parts(), some(&[b"one", b"two"])[..journal.count()]);
            assert_eq!(journal.is_whole(), at % (HEADER + 3) == 0, "{at} bytes");
            assert_eq!(journal.append(b"more").unwrap(), journal.is_whole());
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            std::fs::write(space.path(), &flipped).unwrap();
            let parts = space.parts();
            assert!(parts.len() < 2 || parts.contains(&None), "byte {at}");
        }
    }
}
