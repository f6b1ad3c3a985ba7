//! A MedMNIST archive, or a synthetic cohort in place of one, becomes a folder of images, one a case, with class and
//! official split. Judges no voxel.

use super::Params;
use super::layout::{Candidate, Layout};
use super::phantom::{Cohort, chest};
use super::source::hashed;
use crate::artifacts::{Dataset, DatasetInfo, FileRef};
use crate::context::ExternalFiles;
use crate::error::StageError;
use fs_err as fs;
use pipe_imaging::npz::{self, Archive};
use pipe_imaging::{Affine, Geometry, Image, LabelMap, nifti};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// The column that says which official split an image belongs to.
const SPLIT: &str = "split";

/// The largest image of an archive, in voxels.
const MAX_VOXELS: usize = 1 << 24;

/// Where the archive lies.
pub(super) fn find(params: &Params, name: &str, files: &ExternalFiles) -> Result<PathBuf, StageError> {
    if files.files.iter().any(|file| file.path == name) {
        return Ok(files.root.join(name));
    }
    Err(StageError::Data(format!("`{}` holds no archive `{name}`", params.from)))
}

/// Writes every image below `root`: `uint8`, as PNG, or as NIfTI where it has slices. Holds one image at a time.
///
/// Cases are called `train_00000` and so on, by their place in the archive. `classes` are names; without, a class is its
/// number.
pub(super) fn unpack(
    archive: &Path,
    classes: &[String],
    root: &Path,
) -> Result<(Layout, ExternalFiles), StageError> {
    let reading = "reading the archive";
    let mut open = Archive::open(archive, MAX_VOXELS).map_err(StageError::inner(reading))?;
    let folder = root.join(Dataset::IMAGES);
    fs::create_dir_all(&folder).map_err(StageError::io("create", &folder))?;
    let mut listed: Vec<Listed> = Vec::new();
    for split in open.splits.clone() {
        if let Some(class) =
            split.labels.iter().find(|&&class| !classes.is_empty() && usize::from(class) >= classes.len())
        {
            return Err(StageError::Data(format!(
                "`{}` has class {class}, but `classes` names {} of them, from 0",
                split.name,
                classes.len()
            )));
        }
        let extension = if split.shape[0] == 1 { "png" } else { "nii.gz" };
        let path = |index: usize| format!("{}/{}_{index:05}.{extension}", Dataset::IMAGES, split.name);
        open.for_each_image(&split, |index, voxels| {
            write(&root.join(path(index)), split.shape, split.channels, voxels).map_err(Unpacking::Writing)
        })
        .map_err(|unpacking: Unpacking| unpacking.into_stage_error(reading))?;
        listed.extend(split.labels.iter().enumerate().map(|(index, &class)| Listed {
            id: format!("{}_{index:05}", split.name),
            path: path(index),
            class: class_name(classes, usize::from(class)),
            patient: None,
            split: split.name.to_owned(),
        }));
    }
    layout(&archive.file_stem().unwrap_or_default().to_string_lossy(), root, listed)
}

/// Writes a synthetic cohort as if it had been in an archive.
pub(super) fn pretend(
    cohort: &Cohort,
    classes: &[String],
    root: &Path,
) -> Result<(Layout, ExternalFiles), StageError> {
    let folder = root.join(Dataset::IMAGES);
    fs::create_dir_all(&folder).map_err(StageError::io("create", &folder))?;
    let one = |chest: &chest::Chest| {
        let image = chest::image(cohort, chest);
        let path = write_image(root, &chest.id, &image)?;
        if chest.is_cut_off() {
            let path = root.join(&path);
            let bytes = fs::read(&path).map_err(StageError::io("read", &path))?;
            fs::write(&path, &bytes[..bytes.len() / 2]).map_err(StageError::io("write", &path))?;
        }
        let class = class_name(classes, chest.class);
        let (id, patient) = (chest.id.clone(), chest.patient.clone());
        Ok(Listed { id, path, class, patient, split: chest.split.to_owned() })
    };
    let listed: Result<Vec<Listed>, StageError> = chest::list(cohort).par_iter().map(one).collect();
    layout("Phantom", root, listed?)
}

/// An image that was written.
struct Listed {
    id: String,
    path: String,
    class: String,
    patient: Option<String>,
    split: String,
}

/// The name of a class, or its number.
fn class_name(classes: &[String], class: usize) -> String {
    classes.get(class).cloned().unwrap_or_else(|| class.to_string())
}

fn layout(name: &str, root: &Path, mut listed: Vec<Listed>) -> Result<(Layout, ExternalFiles), StageError> {
    listed.sort_by(|one, other| one.id.cmp(&other.id));
    let files = hashed(root, listed.iter().map(|one| one.path.clone()).collect())?;
    let candidates = listed.into_iter().zip(&files.files).map(|(one, file)| Candidate {
        id: one.id,
        image: Some(FileRef { path: one.path, digest: file.digest }),
        class: Some(one.class),
        patient: one.patient,
        info: BTreeMap::from([(SPLIT.to_owned(), one.split)]),
        ..Candidate::default()
    });
    let dataset = DatasetInfo { name: name.to_owned(), ..DatasetInfo::default() };
    let layout = Layout {
        dataset,
        labels_known: false,
        images_only: false,
        candidates: candidates.collect(),
        findings: Vec::new(),
    };
    Ok((layout, files))
}

/// What can go wrong between an archive and a folder.
enum Unpacking {
    Reading(npz::Error),
    Writing(StageError),
}

impl From<npz::Error> for Unpacking {
    fn from(error: npz::Error) -> Self {
        Self::Reading(error)
    }
}

impl Unpacking {
    fn into_stage_error(self, reading: &'static str) -> StageError {
        match self {
            Self::Reading(error) => StageError::inner(reading)(error),
            Self::Writing(error) => error,
        }
    }
}

/// Writes an image below `root`, as PNG where that can hold its values, and returns its path.
fn write_image(root: &Path, id: &str, image: &Image) -> Result<String, StageError> {
    let bytes = |value: &f32| value.fract() == 0.0 && (0.0..=255.0).contains(value);
    let path = |ending: &str| format!("{}/{id}.{ending}", Dataset::IMAGES);
    if !matches!(image.channels(), 1 | 3) || !image.as_slice().iter().all(bytes) {
        let path = path("nii.gz");
        let written = nifti::write_image(&root.join(&path), image);
        return written.map(|()| path).map_err(StageError::inner("writing an image of the archive"));
    }
    let path = path("png");
    let pixels = image.shape().0.iter().product::<usize>();
    let samples = (0..pixels)
        .flat_map(|pixel| (0..image.channels()).map(move |channel| image.channel(channel)[pixel] as u8));
    write(&root.join(&path), image.shape().0, image.channels(), &samples.collect::<Vec<u8>>())?;
    Ok(path)
}

/// Channels are fastest; only flat images have several.
fn write(path: &Path, shape: [usize; 3], channels: usize, voxels: &[u8]) -> Result<(), StageError> {
    let writing = "writing an image of the archive";
    let [z, y, x] = shape;
    if z > 1 {
        let geometry = Geometry::new(shape, Affine::of_picture([1.0; 3]));
        let volume = LabelMap::from_vec(voxels.to_vec(), geometry).map_err(StageError::inner(writing))?;
        return nifti::write_label(path, &volume).map_err(StageError::inner(writing));
    }
    let file = fs::File::create(path).map_err(StageError::io("create", path))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), x as u32, y as u32);
    encoder.set_color(if channels == 3 { png::ColorType::Rgb } else { png::ColorType::Grayscale });
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(StageError::inner(writing))?;
    writer.write_image_data(voxels).map_err(StageError::inner(writing))?;
    writer.finish().map_err(StageError::inner(writing))
}
