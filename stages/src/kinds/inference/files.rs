//! Predicts files outside of any pipeline, by the same code as the stages do. Prints nothing.

use super::{DeviceName, Inference, Method, Predicted};
use crate::artifact::Artifact;
use crate::artifacts::Predictor;
use crate::error::StageError;
use crate::kinds::listing::counted;
use crate::kinds::open::join;
use crate::kinds::prepare::{PreparedImage, prepare_image};
use fs_err as fs;
use pipe_imaging::open::{self, Format, Options};
use pipe_imaging::{Image, nifti};
use pipe_onnx::Policy;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Images that are predicted at the same time: each is held in memory as a whole.
const IMAGES_AT_ONCE: usize = 4;

/// How many times larger an image may become on the grid of the networks where it becomes larger than [`MOST_VOXELS`].
const MOST_TIMES: f64 = 200.0;
const MOST_VOXELS: f64 = 1e8;

/// How deep DICOM series are looked for: an export has patient, study and series.
const LEVELS: usize = 6;

/// Endings of image files, and the longest first where one ends another.
const ENDINGS: [&str; 11] =
    [".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".tif", ".tiff"];

/// Reads a model that `export` or `ensemble` made: its folder, or the folder of its stage in `results`.
pub fn load(dir: &Path) -> Result<Predictor, StageError> {
    let places = [dir.to_owned(), dir.join("predictor")];
    match places.iter().find(|place| place.join("predictor.json").is_file()) {
        Some(place) => Predictor::load(place).map_err(|error| match error {
            StageError::Malformed { .. } => StageError::Data(format!(
                "{}. A model that another version of pipe made is made anew by running its pipeline",
                error.chain()
            )),
            error => error,
        }),
        None => Err(StageError::Data(format!(
            "`{}` holds no model: there is neither `predictor.json` nor `predictor/predictor.json`. Name what an `export` or \
             `ensemble` stage made, such as results/PIPELINE/STAGE/predictor",
            dir.display()
        ))),
    }
}

/// An image to predict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name of its file or folder, without ending.
    pub id: String,
    /// One file or DICOM folder with all channels, or a file for each; or what is wrong with them.
    pub images: Result<Vec<PathBuf>, String>,
}

/// Finds the images at `input`: a file; a folder with one DICOM series; or a folder whose files are cases, as are the
/// folders below it that hold a DICOM series: `patient/study/series` is the case `patient_study_series`.
///
/// A model of several channels takes them from one file or, in a folder, from files called `CASE_0000`, `CASE_0001`, …
/// Sorted by id. Fails where there is nothing, or two cases have one name.
pub fn sources(input: &Path, channels: usize) -> Result<Vec<Source>, StageError> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !input.exists() {
        return Err(StageError::Data(format!("`{}` does not exist", input.display())));
    }
    if !input.is_dir() {
        let name = name(input);
        let id = without_ending(&name).unwrap_or(name.strip_suffix(".dcm").unwrap_or(&name)).to_owned();
        return Ok(vec![Source { id, images: Ok(vec![input.to_owned()]) }]);
    }
    let entries = fs::read_dir(input).map_err(StageError::io("list", input))?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(StageError::io("list", input))?;
    paths.retain(|path| !name(path).starts_with('.'));
    paths.sort();

    let mut found: BTreeMap<String, Source> = BTreeMap::new();
    let mut add = |id: String, path: PathBuf| match found.get(&id) {
        None => {
            found.insert(id.clone(), Source { id, images: Ok(vec![path]) });
            Ok(())
        }
        Some(first) => Err(StageError::Data(format!(
            "`{}` and another file of `{}` are both case `{}`: rename or remove one",
            path.display(),
            input.display(),
            first.id
        ))),
    };
    let mut slices = 0;
    for path in paths {
        let name = name(&path);
        if path.is_dir() {
            for (id, path) in series_below(&path, &name, LEVELS)? {
                add(id, path)?;
            }
        } else if let Some(id) = without_ending(&name) {
            add(id.to_owned(), path)?;
        } else if is_slice(&path) {
            slices += 1;
        }
    }
    match (found.is_empty(), slices) {
        (true, 0) => Err(StageError::Data(format!(
            "`{}` holds no image: neither a file that ends in {}, nor a DICOM series, in it or below it",
            input.display(),
            ENDINGS.join(", ")
        ))),
        (true, _) => {
            let whole = fs::canonicalize(input).map_err(StageError::io("find", input))?;
            Ok(vec![Source { id: name(&whole), images: Ok(vec![input.to_owned()]) }])
        }
        (false, 0) => Ok(if channels > 1 { grouped(found, channels) } else { found.into_values().collect() }),
        (false, slices) => Err(StageError::Data(format!(
            "`{}` holds {} cases and {slices} DICOM files of its own: put the DICOM series into a folder below it",
            input.display(),
            found.len()
        ))),
    }
}

/// Files of one case, where their names end in the number of the channel.
fn grouped(found: BTreeMap<String, Source>, channels: usize) -> Vec<Source> {
    let mut groups: BTreeMap<String, BTreeMap<usize, PathBuf>> = BTreeMap::new();
    let mut cases = Vec::new();
    for source in found.into_values() {
        let numbered = source.id.rsplit_once('_').filter(|(_, number)| number.len() == 4);
        let numbered = numbered.and_then(|(id, number)| Some((id.to_owned(), number.parse().ok()?)));
        match (numbered, source.images.as_deref()) {
            (Some((id, channel)), Ok([path])) => {
                groups.entry(id).or_default().insert(channel, path.clone());
            }
            _ => cases.push(source),
        }
    }
    for (id, files) in groups {
        let complete = files.len() == channels && files.keys().copied().eq(0..channels);
        let images = if complete {
            Ok(files.into_values().collect())
        } else {
            let there: Vec<String> = files.keys().map(|channel| format!("_{channel:04}")).collect();
            Err(format!(
                "case `{id}` has {} but the model takes {channels} channels: _0000 to _{:04}",
                there.join(", "),
                channels - 1
            ))
        };
        cases.push(Source { id, images });
    }
    cases.sort_by(|a, b| a.id.cmp(&b.id));
    cases
}

fn without_ending(name: &str) -> Option<&str> {
    let lower = name.to_ascii_lowercase();
    let ending = ENDINGS.iter().find(|ending| lower.ends_with(**ending))?;
    Some(&name[..name.len() - ending.len()])
}

/// Whether a file is a slice of a series. The directory that an export of DICOM has at its top is DICOM too, but no image.
fn is_slice(path: &Path) -> bool {
    let directory = path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("DICOMDIR"));
    !directory && open::format(path).is_ok_and(|format| format == Format::Dicom)
}

/// The folders that hold a DICOM series, from this one on downwards, each with the names on the way to it as its id.
fn series_below(dir: &Path, id: &str, levels: usize) -> Result<Vec<(String, PathBuf)>, StageError> {
    let entries = fs::read_dir(dir).map_err(StageError::io("list", dir))?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) =
        paths.map_err(StageError::io("list", dir))?.into_iter().partition(|path| path.is_dir());
    let mut found = Vec::new();
    if files.iter().any(|path| is_slice(path)) {
        found.push((id.to_owned(), dir.to_owned()));
    }
    for folder in folders.iter().filter(|_| levels > 1) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        found.extend(series_below(folder, &format!("{id}_{name}"), levels - 1)?);
    }
    Ok(found)
}

/// An image and where its prediction goes.
#[derive(Debug, Clone)]
pub struct Job {
    pub source: Source,
    /// A `.nii.gz` or `.nii` of the labels on the grid of the source image.
    pub labels: PathBuf,
    /// The same of the class probabilities, one a channel, where they are wanted.
    pub probabilities: Option<PathBuf>,
}

/// What came of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// Millilitres of each label by name, background left out.
    pub volumes_ml: BTreeMap<String, f64>,
    pub time: Duration,
}

/// Loads ONNX Runtime and takes the device; `notice` gets what the user should know of it.
pub fn prepare_machine(
    device: DeviceName,
    notice: &mut dyn FnMut(&str),
) -> Result<pipe_onnx::Provider, StageError> {
    let runtime = pipe_onnx::runtime::load(&Policy::from_environment(), notice)
        .map_err(StageError::inner("loading ONNX Runtime"))?;
    let chosen = pipe_onnx::device::choose(device.into())
        .map_err(StageError::inner("choosing what networks run on"))?;
    chosen.passed_over.iter().for_each(|line| notice(line));
    notice(&format!("{} on {}", runtime.info(), chosen.provider));
    Ok(chosen.provider)
}

/// Predicts every image, some at a time, and tells of each when it is done. An image that cannot be predicted stops no
/// other. A file appears when it is complete.
pub fn predict(
    predictor: &Predictor,
    jobs: &[Job],
    method: Method,
    tell: &(dyn Fn(&Job, Result<Done, StageError>) + Sync),
) {
    let threads = rayon::current_num_threads();
    let at_once = jobs.len().min(threads).clamp(1, IMAGES_AT_ONCE);
    let of_each = NonZeroUsize::new(threads / at_once).unwrap_or(NonZeroUsize::MIN);
    let inference = Inference::new(predictor, method, of_each);
    // As many lanes as images at once, each taking the next one: images differ much in size.
    let next = std::sync::atomic::AtomicUsize::new(0);
    (0..at_once).into_par_iter().with_max_len(1).for_each(|_| {
        while let Some(job) = jobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            tell(job, one(predictor, &inference, job));
        }
    });
}

fn one(predictor: &Predictor, inference: &Inference<'_>, job: &Job) -> Result<Done, StageError> {
    let start = Instant::now();
    let PreparedImage { image, transform, .. } = {
        let source = read(&job.source)?;
        let (found, expected) = (source.channels(), predictor.task.channels);
        if found != expected {
            return Err(StageError::Data(format!(
                "case `{}` has {} but the model takes {expected}",
                job.source.id,
                counted(found, "image channel")
            )));
        }
        check_size(&source, &job.source.id, predictor.task.preparation.spacing_mm)?;
        prepare_image(&source, &predictor.task.preparation)
            .map_err(StageError::inner(format!("preparing case `{}`", job.source.id)))?
    };
    let members: Vec<usize> = (0..predictor.members.len()).collect();
    let mut found = inference.predict(&image, &transform, &[&members], job.probabilities.is_some())?;
    drop(image);
    let Predicted { labels, probabilities } = found.remove(0);
    // The labels last: where they are, all is there.
    if let (Some(path), Some(probabilities)) = (&job.probabilities, &probabilities) {
        nifti::write_image(path, probabilities).map_err(StageError::inner("writing the probabilities"))?;
    }
    nifti::write_label(&job.labels, &labels).map_err(StageError::inner("writing the prediction"))?;
    let voxel_ml = labels.geometry().spacing_mm().iter().product::<f64>() / 1000.0;
    let counts = labels.histogram();
    let foreground = predictor.task.labels.iter().filter(|(value, _)| **value != 0);
    let volume =
        |(value, name): (&u8, &String)| (name.clone(), counts[usize::from(*value)] as f64 * voxel_ml);
    Ok(Done { volumes_ml: foreground.map(volume).collect(), time: start.elapsed() })
}

/// Fails where an image would become very much larger on the grid of the networks: its header gives sizes in another unit,
/// or none at all, and hours later the prediction would be worthless.
fn check_size(image: &Image, id: &str, spacing_mm: Option<[f64; 3]>) -> Result<(), StageError> {
    let Some(wanted) = spacing_mm else { return Ok(()) };
    let own = image.geometry().spacing_mm();
    let times: f64 = own.iter().zip(wanted).map(|(own, wanted)| own / wanted).product();
    let voxels = image.geometry().shape.0.iter().product::<usize>() as f64;
    if times <= MOST_TIMES || times * voxels <= MOST_VOXELS {
        return Ok(());
    }
    Err(StageError::Data(format!(
        "case `{id}` has voxels of {own:?} mm (z, y, x) and the model {wanted:?} mm: it would grow {times:.0} times, to \
         {:.0} million voxels. Set the voxel size in its header to millimetres; if it is right, resample the image before",
        times * voxels / 1e6
    )))
}

fn read(source: &Source) -> Result<Image, StageError> {
    let paths = source.images.as_ref().map_err(|problem| StageError::Data(problem.clone()))?;
    let part = |path: &PathBuf| {
        let opened = open::image(path, Options::default());
        let image = opened.map_err(StageError::inner(format!("reading case `{}`", source.id)))?;
        Ok((path.display().to_string(), image.volume))
    };
    join(&source.id, paths.iter().map(part).collect::<Result<Vec<_>, StageError>>()?)
}
