//! The data elements of one DICOM file (PS3.5, PS3.10): finds the few that matter and steps over all others.
//!
//! Every length is checked against what is left of the file before anything is read, and only values of the wanted
//! attributes are kept, so a lying file costs no memory. Sequences are stepped over, not looked into.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Seek, SeekFrom};

use super::attribute::{Attribute, WANTED};
use super::fault::Fault;
use super::syntax::TransferSyntax;

/// Group and element number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u16, pub u16);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({:04X},{:04X})", self.0, self.1)
    }
}

const TRANSFER_SYNTAX: Tag = Tag(0x0002, 0x0010);
const PIXEL_DATA: Tag = Tag(0x7FE0, 0x0010);
const FLOAT_PIXEL_DATA: Tag = Tag(0x7FE0, 0x0008);
const DOUBLE_PIXEL_DATA: Tag = Tag(0x7FE0, 0x0009);
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

const UNDEFINED: u32 = u32::MAX;
/// Longer than any value of a wanted attribute: six numbers of 16 characters, a UID of 64.
const MAX_VALUE: u32 = 4096;
/// Sequences within sequences; real files have a handful.
const MAX_DEPTH: usize = 32;

/// Where the pixels lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PixelData {
    pub(super) offset: u64,
    /// Bytes, or `None` for compressed fragments, whose end is marked.
    pub(super) length: Option<u32>,
}

/// What was found before the pixels.
#[derive(Debug)]
pub(super) struct Elements {
    pub(super) syntax: TransferSyntax,
    pub(super) pixels: Option<PixelData>,
    values: BTreeMap<Tag, Vec<u8>>,
}

impl Elements {
    /// Reads a file up to its pixels; `length` is the size of the file.
    pub(super) fn read<R: Read + Seek>(reader: R, length: u64) -> Result<Self, Fault> {
        let mut input = Input { reader, position: 0, length };
        let mut start = [0; 132];
        if length < 132 || {
            input.fill(&mut start)?;
            start[128..] != *b"DICM"
        } {
            return Err(Fault::NotDicom);
        }
        let mut syntax = None;
        // The meta group is always little-endian with value representations; its end is told by the next group.
        let meta = Encoding { big_endian: false, explicit: true };
        while input.remaining() >= 8 {
            let tag = input.tag(meta)?;
            if tag.0 != 0x0002 {
                input.step_back(4)?;
                break;
            }
            let (_, length) = input.length(tag, meta)?;
            if tag == TRANSFER_SYNTAX {
                syntax = Some(TransferSyntax::of(&text(&input.value(tag, length)?))?);
            } else {
                input.skip(tag, length)?;
            }
        }
        let syntax = syntax.ok_or(Fault::NoTransferSyntax)?;
        let mut elements = Self { syntax, pixels: None, values: BTreeMap::new() };
        elements.walk(&mut input)?;
        Ok(elements)
    }

    fn walk<R: Read + Seek>(&mut self, input: &mut Input<R>) -> Result<(), Fault> {
        let encoding = Encoding { big_endian: self.syntax.big_endian(), explicit: self.syntax.explicit() };
        // Trailing bytes too few for an element are padding.
        while input.remaining() >= 8 {
            let tag = input.tag(encoding)?;
            let (representation, length) = input.length(tag, encoding)?;
            match tag {
                PIXEL_DATA => {
                    let offset = input.position;
                    if length != UNDEFINED {
                        input.check(tag, length)?;
                    }
                    let length = (length != UNDEFINED).then_some(length);
                    self.pixels = Some(PixelData { offset, length });
                    return Ok(());
                }
                FLOAT_PIXEL_DATA | DOUBLE_PIXEL_DATA => return Err(Fault::FloatPixels),
                _ if length == UNDEFINED => input.skip_sequence(encoding.inside(representation), 0)?,
                _ if WANTED.contains(&tag) => {
                    let value = input.value(tag, length)?;
                    self.values.entry(tag).or_insert(value);
                }
                _ => input.skip(tag, length)?,
            }
        }
        Ok(())
    }

    /// The text of an attribute without padding; `None` when it is missing or empty.
    pub(super) fn text(&self, attribute: Attribute) -> Option<String> {
        self.values.get(&attribute.tag).map(|bytes| text(bytes)).filter(|text| !text.is_empty())
    }

    /// A number stored as 16 bits (US, SS).
    pub(super) fn short(&self, attribute: Attribute) -> Result<Option<u16>, Fault> {
        let Some(bytes) = self.values.get(&attribute.tag) else { return Ok(None) };
        match bytes[..] {
            [] => Ok(None),
            [a, b, ..] if self.syntax.big_endian() => Ok(Some(u16::from_be_bytes([a, b]))),
            [a, b, ..] => Ok(Some(u16::from_le_bytes([a, b]))),
            [_] => Err(attribute.fault(&text(bytes), "a number of 16 bits")),
        }
    }

    /// `N` finite numbers written as text (DS, IS).
    pub(super) fn numbers<const N: usize>(&self, attribute: Attribute) -> Result<Option<[f64; N]>, Fault> {
        let Some(text) = self.text(attribute) else { return Ok(None) };
        let parsed: Option<Vec<f64>> =
            text.split('\\').map(|part| part.trim().parse().ok().filter(|v: &f64| v.is_finite())).collect();
        let numbers = parsed.and_then(|numbers| <[f64; N]>::try_from(numbers).ok());
        numbers.map(Some).ok_or_else(|| {
            attribute.fault(
                &text,
                if N == 1 { "a number" } else { "finite numbers, as many as the standard asks for" },
            )
        })
    }
}

/// Text without the padding of even lengths. What is not UTF-8 is taken as Latin-1, which never fails.
fn text(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes)
        .map_or_else(|_| bytes.iter().map(|&byte| char::from(byte)).collect(), str::to_owned);
    text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned()
}

#[derive(Debug, Clone, Copy)]
struct Encoding {
    big_endian: bool,
    /// Whether elements name their value representation.
    explicit: bool,
}

impl Encoding {
    /// How the items of a sequence are encoded: within `UN` always implicit little-endian (PS3.5, 6.2.2).
    fn inside(self, representation: [u8; 2]) -> Self {
        if representation == *b"UN" { Self { big_endian: false, explicit: false } } else { self }
    }
}

/// A file being walked through; knows how much is left.
struct Input<R> {
    reader: R,
    position: u64,
    length: u64,
}

impl<R: Read + Seek> Input<R> {
    fn remaining(&self) -> u64 {
        self.length.saturating_sub(self.position)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        if (buffer.len() as u64) > self.remaining() {
            return Err(Fault::Truncated { length: self.length });
        }
        self.reader.read_exact(buffer)?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn step_back(&mut self, bytes: u32) -> Result<(), Fault> {
        self.position -= u64::from(bytes);
        self.reader.seek_relative(-i64::from(bytes))?;
        Ok(())
    }

    fn check(&self, tag: Tag, length: u32) -> Result<(), Fault> {
        if u64::from(length) > self.remaining() {
            return Err(Fault::Element { tag, length, remaining: self.remaining() });
        }
        Ok(())
    }

    fn skip(&mut self, tag: Tag, length: u32) -> Result<(), Fault> {
        self.check(tag, length)?;
        self.reader.seek_relative(i64::from(length))?;
        self.position += u64::from(length);
        Ok(())
    }

    fn value(&mut self, tag: Tag, length: u32) -> Result<Vec<u8>, Fault> {
        self.check(tag, length)?;
        if length > MAX_VALUE {
            return Err(Fault::LongValue { tag, length });
        }
        let mut value = vec![0; length as usize];
        self.fill(&mut value)?;
        Ok(value)
    }

    fn u16(&mut self, encoding: Encoding) -> Result<u16, Fault> {
        let mut bytes = [0; 2];
        self.fill(&mut bytes)?;
        Ok(if encoding.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&mut self, encoding: Encoding) -> Result<u32, Fault> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Ok(if encoding.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn tag(&mut self, encoding: Encoding) -> Result<Tag, Fault> {
        Ok(Tag(self.u16(encoding)?, self.u16(encoding)?))
    }

    /// Value representation (blank when implicit) and length of the element whose tag was just read.
    fn length(&mut self, tag: Tag, encoding: Encoding) -> Result<([u8; 2], u32), Fault> {
        if !encoding.explicit || tag.0 == ITEM.0 {
            return Ok(([0; 2], self.u32(encoding)?));
        }
        let mut representation = [0; 2];
        self.fill(&mut representation)?;
        match &representation {
            b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT"
            | b"UV" => {
                self.u16(encoding)?;
                Ok((representation, self.u32(encoding)?))
            }
            other if other.iter().all(u8::is_ascii_uppercase) => {
                Ok((representation, u32::from(self.u16(encoding)?)))
            }
            _ => Err(Fault::Representation { tag, found: representation }),
        }
    }

    /// Steps over items until the sequence ends.
    fn skip_sequence(&mut self, encoding: Encoding, depth: usize) -> Result<(), Fault> {
        if depth >= MAX_DEPTH {
            return Err(Fault::Nesting { limit: MAX_DEPTH });
        }
        loop {
            let tag = self.tag(encoding)?;
            let length = self.u32(encoding)?;
            match tag {
                SEQUENCE_END => return Ok(()),
                ITEM if length == UNDEFINED => self.skip_item(encoding, depth)?,
                ITEM => self.skip(tag, length)?,
                _ => return Err(Fault::Sequence { tag }),
            }
        }
    }

    fn skip_item(&mut self, encoding: Encoding, depth: usize) -> Result<(), Fault> {
        loop {
            let tag = self.tag(encoding)?;
            let (representation, length) = self.length(tag, encoding)?;
            match (tag, length) {
                (ITEM_END, _) => return Ok(()),
                (_, UNDEFINED) => self.skip_sequence(encoding.inside(representation), depth + 1)?,
                _ => self.skip(tag, length)?,
            }
        }
    }
}

/// The compressed fragments of a single frame, joined; the offset table is left out. No more than the file holds.
pub(super) fn fragments<R: Read + Seek>(mut reader: R, offset: u64, length: u64) -> Result<Vec<u8>, Fault> {
    reader.seek(SeekFrom::Start(offset))?;
    let mut input = Input { reader, position: offset, length };
    let encoding = Encoding { big_endian: false, explicit: true };
    let mut joined = Vec::new();
    let mut is_offset_table = true;
    loop {
        let tag = input.tag(encoding)?;
        let length = input.u32(encoding)?;
        match tag {
            SEQUENCE_END => return Ok(joined),
            ITEM if is_offset_table => input.skip(tag, length)?,
            ITEM => {
                input.check(tag, length)?;
                let start = joined.len();
                joined.resize(start + length as usize, 0);
                input.fill(&mut joined[start..])?;
            }
            _ => return Err(Fault::Sequence { tag }),
        }
        is_offset_table = false;
    }
}
