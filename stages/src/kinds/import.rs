//! Reads a data set (a folder in the layout of the Medical Segmentation Decathlon or of BIDS, cases listed in a table, or
//! a MedMNIST archive), checks every file and lists the cases that can be used. The files stay where they are; DICOM
//! series become NIfTI files, the images of an archive PNG files.

mod archive;
mod bids;
mod judge;
mod layout;
mod manifest;
mod patient;
mod phantom;
mod read;
mod series;
mod source;
mod synthetic;
mod table;
mod time;

use self::layout::{Candidate, Layout};
use self::read::Reading;
use self::source::{dataset_files, holds_dataset, read_layout};
use crate::artifact::{Absent, External, InOptional, Out, Ports, Resources};
use crate::artifacts::{CaseTable, CheckTable, Dataset, Finding, Inspection, Severity};
use crate::context::{ExternalFiles, StageContext};
use crate::error::StageError;
use crate::kinds::listing::{counted, listing};
use crate::stage::{ParamProblem, Stage};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

pub use self::patient::PatientRule;
pub use self::phantom::{Phantom, Planted};

pub struct Import;

/// The inspection of a data set that a synthetic cohort should be like.
pub const LIKE: InOptional<Inspection> = InOptional::new("like");
pub const CASES: Out<CaseTable> = Out::new("cases");
pub const CHECKS: Out<CheckTable> = Out::new("checks");
/// The files that were made: of a phantom and of an archive all, of a folder the images that were DICOM series or time
/// points.
pub const DATASET: Out<Dataset> = Out::new("dataset");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Folder with `dataset.json`, `imagesTr` and `labelsTr`; a folder of DICOM series, in folders of any depth, each of
    /// which becomes a case; or `phantom` for a synthetic cohort (a folder of that name is `./phantom`).
    // Where the files lie is no part of what the result depends on; their content is, as an external input.
    #[serde(serialize_with = "without_place")]
    pub from: String,
    /// Name of the data set, e.g. `Task04_Hippocampus`: the folder of this name below `from` when there is one;
    /// otherwise `from` itself, which must then hold the data set of this name.
    #[serde(default)]
    pub task: Option<String>,
    /// A CSV file below `from` that lists the cases instead: columns `id`, `image` (a file, or the folder of a DICOM
    /// series), and where there are any `patient`, `label` (a mask), `label_NAME` (the mask of an annotator) and `class`
    /// (what the image shows as a whole). Further columns, such as `site`, are kept with the case. NIfTI, DICOM,
    /// MetaImage, NRRD, PNG, JPEG and TIFF are read.
    #[serde(default)]
    pub table: Option<String>,
    /// Take the folder for one in the layout of BIDS, with these suffixes.
    #[serde(default)]
    pub bids: Option<Bids>,
    /// A MedMNIST archive below `from`, such as `pneumoniamnist.npz`. Each image becomes a case with its class; the column
    /// `split` says `train`, `val` or `test`. With `from: phantom`, synthetic images of two classes take its place.
    #[serde(default)]
    pub archive: Option<String>,
    /// The names of the classes 0, 1, … of an archive, such as `[normal, pneumonia]`.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Stop the pipeline at anything that would exclude a case, instead of going on without it.
    #[serde(default)]
    pub strict: bool,
    /// How the name of a case tells the patient. Every case is its own patient unless said otherwise; the volumes of a
    /// phantom are pairs.
    #[serde(default)]
    pub patient: Option<PatientRule>,
    /// What to do with an image that has no label.
    #[serde(default)]
    pub unlabelled: Unlabelled,
    /// What a fourth axis of an image is.
    #[serde(default)]
    pub four_d: FourD,
    /// Size and seed of the synthetic cohort; only with `from: phantom`. Wire an inspection to `like`, and its cases have the
    /// sizes, voxels of each label, classes and intensities of those that were inspected.
    #[serde(default)]
    pub phantom: Option<Phantom>,
}

/// Which files of a BIDS data set are meant, by the last part of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bids {
    /// Suffix of images outside of `derivatives`, such as `T1w`.
    pub image: String,
    /// Suffix of label maps, such as `dseg` or `mask`, wherever they lie: the one whose name has all that the name of its
    /// image has. Several label maps of an image are those of annotators, by their `desc-NAME`.
    #[serde(default)]
    pub label: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unlabelled {
    /// Leave the case out and report it as an error.
    #[default]
    Exclude,
    /// Take the case without label.
    Keep,
}

/// What a fourth axis is. Pictures are not asked: their channels are colours.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FourD {
    /// Channels that show the same at the same time, such as T1 and FLAIR.
    #[default]
    Channels,
    /// Time: each time point becomes a case `ID_t000`, `ID_t001`, … of the same patient, with the label map of the file.
    Time,
}

/// Writes `phantom` as it is, and any folder as `folder`.
fn without_place<S: serde::Serializer>(from: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if from == PHANTOM { PHANTOM } else { "folder" })
}

const PHANTOM: &str = "phantom";

impl Params {
    fn is_phantom(&self) -> bool {
        self.from == PHANTOM
    }

    fn patient_rule(&self) -> PatientRule {
        let pairs = self.is_phantom() && self.archive.is_none();
        let default = if pairs { PatientRule::IdPairs } else { PatientRule::EachCase };
        self.patient.unwrap_or(default)
    }
}

impl Stage for Import {
    const KIND: &'static str = "import";
    const VERSION: u32 = 5;
    const SUMMARY: &'static str = "Reads a data set, checks every file and lists the cases that can be used.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        let mut problem = |parameter, message: String, help: &str| {
            problems.push(ParamProblem { parameter, message, help: help.into() });
        };
        if params.from.is_empty() {
            problem("from", "is empty".into(), "name a folder, or `phantom` for a synthetic cohort");
        }
        if params.phantom.is_some() && !params.is_phantom() {
            let message = format!("describes a synthetic cohort, but `from` is `{}`", params.from);
            problem("phantom", message, "use `from: phantom`, or leave `phantom` out");
        }
        if params.task.is_some() && params.is_phantom() {
            problem("task", "a phantom has no task".into(), "leave `task` out");
        }
        let listed = [
            ("table", params.table.is_some()),
            ("bids", params.bids.is_some()),
            ("archive", params.archive.is_some()),
        ];
        let mut listed = listed.into_iter().filter_map(|(name, given)| given.then_some(name));
        if let Some(one) = listed.next() {
            // A synthetic cohort stands in for an archive, but not for what a table or a BIDS folder may hold.
            let phantom = params.is_phantom() && params.archive.is_none();
            let other = listed.next().or(phantom.then_some("from: phantom"));
            if let Some(other) = other.or(params.task.is_some().then_some("task")) {
                let message = format!("both `{one}` and `{other}` say what the cases are");
                problem(one, message, "leave one of the two out");
            }
        }
        for (parameter, path) in [("table", &params.table), ("archive", &params.archive)] {
            if let Some(path) = path.as_deref().filter(|path| !is_inner_path(path)) {
                problem(
                    parameter,
                    format!("`{path}` is no path below `from`"),
                    "use the name of a file in the folder",
                );
            }
        }
        if !params.classes.is_empty() && params.archive.is_none() {
            let message = "only an archive has classes without a name".into();
            problem("classes", message, "name the classes in the table, or leave `classes` out");
        }
        if let Some(bids) = &params.bids {
            let suffixes = std::iter::once(&bids.image).chain(&bids.label);
            for suffix in suffixes.filter(|suffix| !bids::is_suffix(suffix)) {
                problem(
                    "bids",
                    format!("`{suffix}` is no suffix"),
                    "use letters and digits, such as `T1w` or `dseg`",
                );
            }
        }
        if let Some(task) = params.task.as_deref().filter(|task| !is_plain_name(task)) {
            problem(
                "task",
                format!("`{task}` is no name of a folder"),
                "use a name such as `Task04_Hippocampus`",
            );
        }
        if params.is_phantom() && params.archive.is_some() && !matches!(params.classes.len(), 0 | 2) {
            let message = format!("names {} classes, but a synthetic cohort has 2", params.classes.len());
            problem("classes", message, "name two classes, such as `[normal, pneumonia]`");
        }
        let phantom = params.phantom.clone().unwrap_or_default();
        problems.extend(phantom.problems(params.archive.is_some()));
        problems
    }

    fn declare(params: &Params, ports: &mut Ports) {
        ports.writes(&CASES).writes(&CHECKS).writes(&DATASET).needs(Resources::PARALLEL);
        if params.is_phantom() {
            ports.reads_optional(&LIKE);
            return;
        }
        if params.table.is_some() || params.bids.is_some() || params.archive.is_some() {
            ports.reads_files(External {
                name: "data".into(),
                parameter: "from",
                path: PathBuf::from(&params.from),
                // Nothing but the archive.
                parts: params.archive.iter().map(PathBuf::from).collect(),
                absent: Absent::LeftOut,
            });
            return;
        }
        let own = [Dataset::MANIFEST, Dataset::IMAGES, Dataset::LABELS].map(PathBuf::from);
        let below =
            params.task.iter().flat_map(|task| own.iter().map(move |part| Path::new(task).join(part)));
        ports.reads_files(External {
            name: "data".into(),
            parameter: "from",
            path: PathBuf::from(&params.from),
            parts: below.chain(own.iter().cloned()).collect(),
            // For a tree of DICOM series.
            absent: Absent::Whole,
        });
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let files = if params.table.is_some() || params.bids.is_some() {
            context.external("data")?.clone()
        } else if params.is_phantom() {
            return synthetic::import(params, context);
        } else if let Some(name) = &params.archive {
            let archive = archive::find(params, name, context.external("data")?)?;
            let root = context.output_dir(&DATASET)?;
            let (layout, files) = archive::unpack(&archive, &params.classes, root)?;
            return finish(params, layout, &files, context);
        } else {
            let files = context.external("data")?;
            if !holds_dataset(params, files) {
                let layout = series::read(params, files)?;
                return finish(params, layout, files, context);
            }
            dataset_files(params, files)
        };
        let layout = read_layout(params, &files)?;
        finish(params, layout, &files, context)
    }
}

/// Reads what a layout lists and writes the tables.
fn finish(
    params: &Params,
    mut layout: Layout,
    files: &ExternalFiles,
    context: &StageContext,
) -> Result<(), StageError> {
    let readings = read_all(&layout.candidates, params.four_d, files, context)?;
    let readings = time::spread(&mut layout, readings, params.patient_rule());
    let (table, checks) = judge::judge(params, layout, &readings);
    report(&table, &checks, readings.len(), context);
    refuse(params, &table, &checks)?;
    context.write(&CASES, &table)?;
    context.write(&CHECKS, &checks)
}

fn is_inner_path(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None))
}

fn read_all(
    candidates: &[Candidate],
    four_d: FourD,
    files: &ExternalFiles,
    context: &StageContext,
) -> Result<Vec<Reading>, StageError> {
    let done = AtomicUsize::new(0);
    let read = |candidate: &Candidate| {
        let reading = read::read(candidate, four_d, files, context)?;
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        context.progress(done, candidates.len(), "cases", candidate.id.as_str());
        Ok(reading)
    };
    candidates.par_iter().map(read).collect()
}

fn report(table: &CaseTable, checks: &CheckTable, candidates: usize, context: &StageContext) {
    let excluded = candidates - table.cases.len();
    let [errors, warnings, notes] =
        [Severity::Error, Severity::Warning, Severity::Note].map(|severity| checks.count(severity));
    context.fact("cases", table.cases.len());
    context.fact("patients", table.patients().len());
    context.fact("excluded", excluded);
    context.fact("errors", errors);
    context.fact("warnings", warnings);
    if errors + warnings + notes > 0 {
        context.warn(format!(
            "{excluded} of {} excluded; {}, {} and {} in `checks.csv`",
            counted(candidates, "case"),
            counted(errors, "error"),
            counted(warnings, "warning"),
            counted(notes, "note")
        ));
    }
}

/// Stops when there is nothing to go on with, or at any error when the user wants that.
fn refuse(params: &Params, table: &CaseTable, checks: &CheckTable) -> Result<(), StageError> {
    if !params.strict && !table.cases.is_empty() {
        return Ok(());
    }
    let line = |finding: &Finding| match finding.file.as_str() {
        "" => finding.problem.clone(),
        file => format!("`{file}`: {}", finding.problem),
    };
    let errors: Vec<String> =
        checks.findings.iter().filter(|finding| finding.severity == Severity::Error).map(line).collect();
    match (table.cases.is_empty(), errors.is_empty()) {
        (true, true) => Err(StageError::Data(format!("`{}` holds no case", params.from))),
        (true, false) => {
            Err(StageError::Data(format!("no case can be used; {}", listing(["error", "errors"], &errors))))
        }
        (false, true) => Ok(()),
        (false, false) => Err(StageError::Data(listing(["error", "errors"], &errors))),
    }
}

#[cfg(test)]
mod tests;
