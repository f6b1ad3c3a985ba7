//! `pipe predict`: label maps of images, outside of any pipeline.

use super::{CliError, OK, STAGE_FAILED};
use crate::console;
use clap::{Args, ValueEnum};
use pipe_stages::error::StageError;
use pipe_stages::kinds::inference::files::{self, Done, Job};
use pipe_stages::kinds::inference::{DeviceName, Method};
use serde_json::json;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Predict the label map of an image, or of each image of a folder
///
/// Does what the `evaluate` stage does with the same model, and writes label maps on the grid of each image: the same bits.
/// An image that cannot be predicted is told and stops no other; the exit code is then 1.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "every switch of a command is one")]
pub(crate) struct PredictArgs {
    /// What an `export` or `ensemble` stage made, e.g. results/decathlon/ensemble
    #[arg(value_name = "MODEL_DIR")]
    model: PathBuf,
    /// A NIfTI, MetaImage, NRRD, PNG or TIFF file, a folder with a DICOM series, or a folder of such files and series
    ///
    /// For a model of several channels: a file with all of them, or a folder of files CASE_0000, CASE_0001, …
    #[arg(value_name = "FILE_OR_FOLDER")]
    input: PathBuf,
    /// Folder for the label maps, CASE.nii.gz each; or, for one image, the name of the file
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Also write the class probabilities, one a channel in the order of the labels, as CASE_probabilities.nii.gz
    #[arg(long)]
    probabilities: bool,
    /// Average the predictions of every mirrored form of an image: 4 (2D) or 8 (3D) times the work
    #[arg(long)]
    mirror: bool,
    /// Share of a patch that its neighbour covers too, from 0 to below 1
    #[arg(long, value_name = "SHARE", default_value_t = Method::default().overlap)]
    overlap: f64,
    /// How much a voxel of a patch counts where patches overlap
    #[arg(long, value_enum, default_value_t = Blend::Gaussian)]
    blend: Blend,
    /// Whose sliding window
    #[arg(long, value_enum, default_value_t = Tiling::Nnunet)]
    tiling: Tiling,
    /// Patches in one run of a network [default: what suits the device]
    #[arg(long, value_name = "N")]
    batch: Option<NonZeroUsize>,
    /// What networks run on
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    /// Threads [default: one a core]
    #[arg(short = 'j', long = "threads", value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Overwrite predictions that are there
    #[arg(long)]
    force: bool,
    /// Print one JSON object an image, on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Blend {
    /// Most in the middle of the patch
    Gaussian,
    /// All the same
    Constant,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Tiling {
    /// Evenly spaced patches, as in nnU-Net
    Nnunet,
    /// Patches at a fixed step, and MONAI's Gaussian
    Monai,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Device {
    Auto,
    Cpu,
    Cuda,
    Tensorrt,
    Coreml,
    Directml,
    Openvino,
}

pub(crate) fn run(args: &PredictArgs) -> Result<u8, CliError> {
    if !(0.0..1.0).contains(&args.overlap) {
        let message = format!("`--overlap {}` is no share of a patch", args.overlap);
        return Err(CliError::usage(message, "use a number from 0 to below 1, such as 0.5"));
    }
    let predictor = files::load(&args.model).map_err(refused)?;
    let sources = files::sources(&args.input, predictor.task.channels).map_err(refused)?;
    let jobs = jobs(args, sources)?;
    let made = folders(&jobs)?;
    let method = Method {
        mirror: args.mirror,
        overlap: args.overlap,
        blend: match args.blend {
            Blend::Gaussian => pipe_stages::kinds::inference::Blend::Gaussian,
            Blend::Constant => pipe_stages::kinds::inference::Blend::Constant,
        },
        tiling: match args.tiling {
            Tiling::Nnunet => pipe_stages::kinds::inference::Tiling::Nnunet,
            Tiling::Monai => pipe_stages::kinds::inference::Tiling::Monai,
        },
        batch: args.batch,
        ..Method::default()
    };
    let provider = files::prepare_machine(device(args.device), &mut |line| console::hint(line));
    let method = Method { provider: provider.map_err(|error| CliError::Failed(error.chain()))?, ..method };

    let (done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let tell = |job: &Job, result: Result<Done, StageError>| {
        let at = done.fetch_add(1, Ordering::Relaxed) + 1;
        failed.fetch_add(usize::from(result.is_err()), Ordering::Relaxed);
        report(args, job, result, (at, jobs.len()));
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads.map_or(0, NonZeroUsize::get));
    let pool = pool.build().map_err(|error| CliError::failed(&error))?;
    pool.install(|| files::predict(&predictor, &jobs, method, &tell));
    let failed = failed.into_inner();
    if failed == 0 {
        return Ok(OK);
    }
    // A folder that was made for nothing would be in the way of the next try.
    for folder in made {
        // Not empty: something was made after all.
        drop(std::fs::remove_dir(folder));
    }
    console::error(format_args!("{failed} of {} images could not be predicted", jobs.len()));
    Ok(STAGE_FAILED)
}

/// What the user gave is the user's to change.
fn refused(error: StageError) -> CliError {
    match error {
        StageError::Data(message) => {
            CliError::usage(message, "`pipe predict --help` says what a model and an input are")
        }
        error => CliError::Failed(error.chain()),
    }
}

fn device(device: Device) -> DeviceName {
    match device {
        Device::Auto => DeviceName::Auto,
        Device::Cpu => DeviceName::Cpu,
        Device::Cuda => DeviceName::Cuda,
        Device::Tensorrt => DeviceName::Tensorrt,
        Device::Coreml => DeviceName::Coreml,
        Device::Directml => DeviceName::Directml,
        Device::Openvino => DeviceName::Openvino,
    }
}

/// Where each prediction goes. Nothing that is there is overwritten unless that was asked for.
fn jobs(args: &PredictArgs, sources: Vec<files::Source>) -> Result<Vec<Job>, CliError> {
    let name = args.output.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = name.strip_suffix(".nii.gz").or_else(|| name.strip_suffix(".nii"));
    if stem.is_some() && sources.len() != 1 {
        let message =
            format!("`{}` is one file, but there are {} images", args.output.display(), sources.len());
        return Err(CliError::usage(message, "name a folder after -o"));
    }
    let job = |source: files::Source| {
        let labels = match stem {
            Some(_) => args.output.clone(),
            None => args.output.join(format!("{}.nii.gz", source.id)),
        };
        let probabilities = format!("{}_probabilities.nii.gz", stem.unwrap_or(&source.id));
        let probabilities = args.probabilities.then(|| labels.with_file_name(probabilities));
        Job { source, labels, probabilities }
    };
    let jobs: Vec<Job> = sources.into_iter().map(job).collect();
    let outputs = || jobs.iter().flat_map(|job| std::iter::once(&job.labels).chain(&job.probabilities));
    let inputs: BTreeSet<PathBuf> = jobs
        .iter()
        .flat_map(|job| job.source.images.iter().flatten())
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    if let Some(path) = outputs().find(|path| path.canonicalize().is_ok_and(|path| inputs.contains(&path))) {
        let message = format!("the prediction would overwrite its own image `{}`", path.display());
        return Err(CliError::usage(message, "name another folder after -o"));
    }
    match outputs().find(|path| path.exists()) {
        Some(path) if !args.force => {
            let message = format!("`{}` exists", path.display());
            Err(CliError::usage(message, "name another place after -o, or add --force to overwrite"))
        }
        _ => Ok(jobs),
    }
}

/// Makes the folders that predictions go into, and returns those that were not there.
fn folders(jobs: &[Job]) -> Result<Vec<PathBuf>, CliError> {
    let folders: BTreeSet<&Path> = jobs.iter().filter_map(|job| job.labels.parent()).collect();
    let mut made = Vec::new();
    for folder in folders.into_iter().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        std::fs::create_dir_all(folder)
            .map_err(|error| CliError::Failed(format!("cannot create `{}`: {error}", folder.display())))?;
        made.push(folder.to_owned());
    }
    Ok(made)
}

fn report(args: &PredictArgs, job: &Job, result: Result<Done, StageError>, (at, all): (usize, usize)) {
    let id = &job.source.id;
    match result {
        Ok(Done { volumes_ml, time }) if args.json => console::data_line(json!({
            "case": id,
            "labels": job.labels,
            "probabilities": job.probabilities,
            "volumes_ml": volumes_ml,
            "seconds": time.as_secs_f64(),
        })),
        Ok(Done { volumes_ml, time }) => {
            let volumes: Vec<String> =
                volumes_ml.iter().map(|(name, volume)| format!("{name} {volume:.2} ml")).collect();
            let (seconds, volumes) = (time.as_secs_f64(), volumes.join(", "));
            console::hint(format_args!("[{at}/{all}] {}  {seconds:.1} s  {volumes}", job.labels.display()));
        }
        Err(error) => {
            let error = error.chain();
            if args.json {
                console::data_line(json!({ "case": id, "error": error }));
            }
            console::error(format_args!("[{at}/{all}] {id}: {error}"));
        }
    }
}
