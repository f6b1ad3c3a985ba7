//! What the first directory of a TIFF file claims, before the decoder: it takes 32 bytes of memory for every value that a
//! tag declares, up to 256 MiB, and looks for them in the file only then.

use std::io::{Error, Read, Seek, SeekFrom};

use super::Fault;

/// Fails when a tag declares more bytes than the file has. Whatever else is wrong is left to the decoder.
pub(super) fn check<R: Read + Seek>(input: &mut R) -> Result<(), Fault> {
    let stored = input.seek(SeekFrom::End(0))?;
    let claim = largest_claim(input).unwrap_or(0);
    input.seek(SeekFrom::Start(0))?;
    if claim > stored { Err(Fault::Tag { declared: claim, stored }) } else { Ok(()) }
}

/// The most bytes that a tag declares. An error where the file ends early or is no TIFF.
fn largest_claim<R: Read + Seek>(input: &mut R) -> Result<u64, Error> {
    let mut start = [0; 8];
    input.seek(SeekFrom::Start(0))?;
    input.read_exact(&mut start)?;
    let little = start[0] == b'I';
    let number = |bytes: &[u8]| {
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
    };
    // BigTIFF has 8 bytes where TIFF has 4, and begins with their number.
    let wide = number(&start[2..4]) == 43;
    let mut word = [0; 8];
    let word = if wide { &mut word[..] } else { &mut word[..4] };
    if wide {
        input.read_exact(word)?;
    } else {
        word.copy_from_slice(&start[4..8]);
    }
    input.seek(SeekFrom::Start(number(word)))?;
    let mut count = [0; 8];
    let count = if wide { &mut count[..] } else { &mut count[..2] };
    input.read_exact(count)?;
    let mut largest = 0;
    for _ in 0..number(count) {
        let mut kind = [0; 4];
        // The last entries of a file that is cut off are no claim.
        if input.read_exact(&mut kind).and_then(|()| input.read_exact(word)).is_err() {
            break;
        }
        largest = largest.max(number(word).saturating_mul(bytes_of(number(&kind[2..]))));
        input.read_exact(word)?;
    }
    Ok(largest)
}

/// The size of a value by its type.
fn bytes_of(kind: u64) -> u64 {
    match kind {
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16..=18 => 8,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A directory of one tag with `count` values of type `kind`, in either byte order and size.
    fn file(kind: u16, count: u32, big_endian: bool, wide: bool) -> Vec<u8> {
        let put = |value: u64, bytes: usize| {
            let value = value.to_be_bytes()[8 - bytes..].to_vec();
            if big_endian { value } else { value.into_iter().rev().collect() }
        };
        let word = if wide { 8 } else { 4 };
        let mut file = if big_endian { b"MM".to_vec() } else { b"II".to_vec() };
        file.extend(put(if wide { 43 } else { 42 }, 2));
        file.extend(if wide { [put(8, 2), put(0, 2), put(16, 8)].concat() } else { put(8, 4) });
        file.extend(put(1, if wide { 8 } else { 2 }));
        file.extend([put(256, 2), put(kind.into(), 2), put(count.into(), word), put(0, word)].concat());
        file
    }

    #[test]
    fn a_tag_that_claims_more_than_the_file_has_is_told() {
        for (big_endian, wide) in [(false, false), (true, false), (false, true), (true, true)] {
            let check = |kind, count| check(&mut Cursor::new(file(kind, count, big_endian, wide)));
            assert!(check(4, 1).is_ok());
            let error = check(4, 8_000_000).expect_err("there are not that many").to_string();
            let length = file(4, 1, big_endian, wide).len();
            assert_eq!(error, format!("a tag declares 32000000 bytes, the file has {length}"));
            assert!(check(12, u32::MAX).is_err());
        }
    }

    #[test]
    fn what_is_cut_off_is_left_to_the_decoder() {
        let whole = file(4, 1, false, false);
        for length in 0..whole.len() {
            assert!(check(&mut Cursor::new(&whole[..length])).is_ok(), "{length} bytes");
        }
    }
}
