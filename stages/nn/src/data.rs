//! Labelled images as the training loop sees them, and the checks they must pass before any compute.

use std::sync::Arc;

use crate::NnError;
use crate::loss::IGNORE;
use crate::network::{Dims, Network, Task};

/// One labelled image. Intensities should be normalised (z-score): padding is 0.
#[derive(Clone, Debug)]
pub struct Case {
    /// Names the case in errors.
    pub id: String,
    /// Voxels along z, y, x.
    pub shape: [usize; 3],
    /// `[channels, z, y, x]`, finite.
    pub image: Arc<[f32]>,
    /// `[z, y, x]`, or one value for the class of the whole image; below the number of classes, or [`IGNORE`].
    pub label: Arc<[u8]>,
}

/// What went wrong in a source of cases; the training loop adds which case it was.
pub type LoadError = Box<dyn std::error::Error + Send + Sync>;

/// Where cases come from. Cases are loaded again every epoch, so that memory need not hold them all; `load` must give
/// the same case for the same index each time.
pub trait CaseSource: Sync {
    /// Number of cases.
    fn len(&self) -> usize;

    /// Whether there are no cases.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Loads case `index`, below [`CaseSource::len`].
    ///
    /// # Errors
    /// Whatever the source met, for example a file that vanished.
    fn load(&self, index: usize) -> Result<Case, LoadError>;
}

/// Cases held in memory; loading shares their arrays.
impl CaseSource for [Case] {
    fn len(&self) -> usize {
        <[Case]>::len(self)
    }

    fn load(&self, index: usize) -> Result<Case, LoadError> {
        Ok(self[index].clone())
    }
}

impl CaseSource for Vec<Case> {
    fn len(&self) -> usize {
        <[Case]>::len(self)
    }

    fn load(&self, index: usize) -> Result<Case, LoadError> {
        CaseSource::load(self.as_slice(), index)
    }
}

/// What one pass over a source showed.
pub(crate) struct Survey {
    pub(crate) ids: Vec<String>,
    pub(crate) shapes: Vec<[usize; 3]>,
    /// Which classes occur, by their number.
    pub(crate) present: [bool; 256],
}

pub(crate) fn load(source: &dyn CaseSource, split: &'static str, index: usize) -> Result<Case, NnError> {
    source.load(index).map_err(|source| NnError::Load { split, index, source })
}

/// Loads every case once and checks it against the network.
pub(crate) fn survey(
    source: &dyn CaseSource,
    split: &'static str,
    network: &Network,
) -> Result<Survey, NnError> {
    let mut survey = Survey { ids: Vec::new(), shapes: Vec::new(), present: [false; 256] };
    for index in 0..source.len() {
        let case = load(source, split, index)?;
        check(&case, network)?;
        case.label.iter().for_each(|label| survey.present[usize::from(*label)] = true);
        survey.shapes.push(case.shape);
        survey.ids.push(case.id);
    }
    Ok(survey)
}

fn check(case: &Case, network: &Network) -> Result<(), NnError> {
    let fail = |problem: String| Err(NnError::Case { id: case.id.clone(), problem });
    let [z, y, x] = case.shape;
    let voxels: usize = case.shape.iter().product();
    if voxels == 0 {
        return fail(format!("shape {z}×{y}×{x} has no voxels"));
    }
    // Slices of a 2D network are seen one by one.
    let axes = if network.dims == Dims::Two { 1..3 } else { 0..3 };
    if let Some(most) = network.fixed_size.filter(|most| axes.clone().any(|a| case.shape[a] > most[a])) {
        return fail(format!(
            "shape {z}×{y}×{x} does not fit into {most:?}, the only size that this network takes: crop the images, or leave \
             `patch` out"
        ));
    }
    let channels = network.in_channels;
    if case.image.len() != channels * voxels {
        let found = case.image.len();
        return fail(format!("image has {found} values, expected {channels} channels of {z}×{y}×{x}"));
    }
    match network.task {
        Task::Segmentation if case.label.len() != voxels => {
            return fail(format!("label has {} values, expected {z}×{y}×{x}", case.label.len()));
        }
        Task::Classification if case.label.len() != 1 => {
            return fail(format!("label has {} values, expected the class of the image", case.label.len()));
        }
        _ => {}
    }
    if let Some(place) = case.image.iter().position(|value| !value.is_finite()) {
        return fail(format!("image value {place} is {}", case.image[place]));
    }
    let unknown = |label: &&u8| usize::from(**label) >= network.classes && **label != IGNORE;
    match case.label.iter().find(unknown) {
        Some(label) => {
            fail(format!("label {label} is none of the {} classes, nor {IGNORE}", network.classes))
        }
        None => Ok(()),
    }
}
