//! `.npz` archives in the layout of MedMNIST: `{train,val,test}_images` and `_labels`, `uint8`, read one image at a time.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zip::ZipArchive;

use crate::bounded::fill;
use crate::file_error::FileError;
use crate::npy;

/// An archive that could not be read; [`Fault`] is the cause.
pub type Error = FileError<Fault>;

/// What is wrong.
#[derive(Debug, Error)]
pub enum Fault {
    /// The operating system, or a deflated member: cut off, checksum mismatch.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Not a ZIP archive, or a damaged one.
    #[error("not a sound .npz archive: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// None of the arrays that make a split.
    #[error("no array is called train_images, val_images or test_images; found: {}", found.join(", "))]
    Layout { found: Vec<String> },
    /// Images without labels.
    #[error("there is no array `{0}`")]
    Missing(String),
    /// The header of an array.
    #[error("array `{name}`: {fault}")]
    Array { name: String, fault: npy::Fault },
    /// An array of another type or shape.
    #[error("array `{name}` is {descr} {shape:?}, expected {expected}")]
    Shape { name: String, descr: String, shape: Vec<usize>, expected: &'static str },
    /// Another number of labels than images.
    #[error("`{name}` has {images} images and {labels} labels")]
    Count { name: String, images: usize, labels: usize },
    /// More voxels in an image, or images in a split, than may be read.
    #[error("array `{name}` has {count} {what}, the limit is {limit}")]
    TooLarge { name: String, count: u128, what: &'static str, limit: usize },
    /// The member holds another number of bytes than its header declares.
    #[error("array `{name}` declares {declared} bytes, the archive has {found}")]
    Length { name: String, declared: u128, found: u64 },
}

const READING: &str = "read the arrays of";

/// The largest number of images in a split; their labels are held in memory.
const MAX_IMAGES: usize = 1 << 27;

/// An open archive.
pub struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
    /// `train`, `val` and `test`, those that are there.
    pub splits: Vec<Split>,
}

/// One of `train`, `val` and `test`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub name: &'static str,
    /// How many images there are.
    pub images: usize,
    /// Shape of each, z, y, x.
    pub shape: [usize; 3],
    /// 1, or 3 for red, green and blue.
    pub channels: usize,
    /// One class an image.
    pub labels: Vec<u8>,
}

impl Archive {
    /// Opens an archive and reads its labels; `max_voxels` bounds one image.
    pub fn open(path: &Path, max_voxels: usize) -> Result<Self, Error> {
        let attempt = || {
            let mut zip = ZipArchive::new(BufReader::new(File::open(path)?))?;
            let mut splits = Vec::new();
            for name in ["train", "val", "test"] {
                if zip.index_for_name(&member(name, "images")).is_some() {
                    splits.push(split(&mut zip, name, max_voxels)?);
                }
            }
            if splits.is_empty() {
                let found = zip
                    .file_names()
                    .filter_map(Result::ok)
                    .map(|name| name.trim_end_matches(".npy").to_owned())
                    .collect();
                return Err(Fault::Layout { found });
            }
            Ok(Self { path: path.to_owned(), zip, splits })
        };
        attempt().map_err(|fault| Error::new(READING, path, fault))
    }

    /// Hands every image of a split to `each`, in order: index and values, channels fastest, then x. Holds one image.
    pub fn for_each_image<E: From<Error>>(
        &mut self,
        split: &Split,
        mut each: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let fail = |path: &Path, fault: Fault| Error::new(READING, path, fault);
        let name = member(split.name, "images");
        let (header, mut input, size) =
            array(&mut self.zip, &name).map_err(|fault| fail(&self.path, fault))?;
        let mut voxels = vec![0; split.shape.iter().product::<usize>() * split.channels];
        for index in 0..split.images {
            let found = fill(&mut input, &mut voxels).map_err(|error| fail(&self.path, error.into()))?;
            if found < voxels.len() {
                let declared = split.images as u128 * voxels.len() as u128;
                return Err(fail(
                    &self.path,
                    Fault::Length { name, declared, found: size - header.data_offset },
                )
                .into());
            }
            each(index, &voxels)?;
        }
        // The end verifies the checksum.
        let rest = input.read(&mut [0]).map_err(|error| fail(&self.path, error.into()))?;
        if rest > 0 {
            let declared = split.images as u128 * voxels.len() as u128;
            return Err(fail(
                &self.path,
                Fault::Length { name, declared, found: size - header.data_offset + 1 },
            )
            .into());
        }
        Ok(())
    }
}

fn member(split: &str, what: &str) -> String {
    format!("{split}_{what}.npy")
}

/// The header of an array, its voxels as a reader, and the size of the member.
fn array<'a>(
    zip: &'a mut ZipArchive<BufReader<File>>,
    name: &str,
) -> Result<(npy::Header, impl Read + 'a, u64), Fault> {
    let mut entry = match zip.by_name(name) {
        Err(zip::result::ZipError::FileNotFound) => return Err(Fault::Missing(name.to_owned())),
        other => other?,
    };
    let size = entry.size();
    let array = |fault| Fault::Array { name: name.to_owned(), fault };
    let header = npy::parse_header(&mut entry).map_err(array)?;
    let declared =
        header.shape.iter().try_fold(1_u128, |n, &d| n.checked_mul(d as u128)).unwrap_or(u128::MAX);
    let is_bytes = header.descr == "|u1" && !header.fortran_order;
    let found = size.saturating_sub(header.data_offset);
    if is_bytes && declared != u128::from(found) {
        return Err(Fault::Length { name: name.to_owned(), declared, found });
    }
    if !is_bytes {
        let (descr, shape) = (header.descr, header.shape);
        return Err(Fault::Shape { name: name.to_owned(), descr, shape, expected: "|u1 in C order" });
    }
    Ok((header, entry, size))
}

fn split(
    zip: &mut ZipArchive<BufReader<File>>,
    name: &'static str,
    max_voxels: usize,
) -> Result<Split, Fault> {
    let images_name = member(name, "images");
    let header = array(zip, &images_name)?.0;
    let expected = |expected| Fault::Shape {
        name: images_name.clone(),
        descr: header.descr.clone(),
        shape: header.shape.clone(),
        expected,
    };
    let (images, shape, channels) = match header.shape[..] {
        // No volume is three voxels wide.
        [n, y, x, 3] => (n, [1, y, x], 3),
        [n, y, x] => (n, [1, y, x], 1),
        [n, z, y, x] => (n, [z, y, x], 1),
        _ => return Err(expected("[n, y, x], [n, y, x, 3] or [n, z, y, x]")),
    };
    let voxels = shape
        .iter()
        .chain([&channels])
        .try_fold(1_u128, |n, &d| n.checked_mul(d as u128))
        .unwrap_or(u128::MAX);
    if voxels == 0 {
        return Err(expected("images with voxels"));
    }
    let too_large = |count, what, limit| Fault::TooLarge { name: images_name.clone(), count, what, limit };
    if voxels > max_voxels as u128 {
        return Err(too_large(voxels, "voxels an image", max_voxels));
    }
    if images > MAX_IMAGES {
        return Err(too_large(images as u128, "images", MAX_IMAGES));
    }
    let labels_name = member(name, "labels");
    let (header, mut input, _) = array(zip, &labels_name)?;
    let ([count] | [count, 1]) = header.shape[..] else {
        let (descr, shape) = (header.descr, header.shape);
        return Err(Fault::Shape {
            name: labels_name,
            descr,
            shape,
            expected: "one class an image, [n] or [n, 1]",
        });
    };
    if count != images {
        return Err(Fault::Count { name: name.to_owned(), images, labels: count });
    }
    let mut labels = Vec::new();
    input.by_ref().take(count as u64 + 1).read_to_end(&mut labels)?;
    if labels.len() != count {
        return Err(Fault::Length { name: labels_name, declared: count as u128, found: labels.len() as u64 });
    }
    Ok(Split { name, images, shape, channels, labels })
}
