//! What the cases of a synthetic cohort should be like, as an inspection measured those of a real one. Holds figures
//! only: no voxel, name or patient of the real cases goes on.

use crate::artifacts::{CaseRow, Inspection, IntensityRow, LabelRow};
use crate::error::StageError;
use pipe_imaging::Affine;
use std::collections::{BTreeMap, BTreeSet};

/// The largest image that is made, in voxels of all channels.
const MAX_VOXELS: usize = 1 << 26;

/// The cases of an inspection as templates, in their order.
#[derive(Debug, Clone)]
pub(in super::super) struct Likeness {
    pub(super) templates: Vec<Template>,
    pub(in super::super) channels: Vec<String>,
    /// Meaning of each label value, background left out; empty where nothing is segmented.
    pub(in super::super) labels: BTreeMap<u8, String>,
    /// Names of the classes; empty where nothing is classified.
    pub(in super::super) classes: Vec<String>,
}

/// One case to be resembled.
#[derive(Debug, Clone)]
pub(super) struct Template {
    /// Counted in the order in which patients come.
    pub(super) patient: usize,
    /// Index into the classes.
    pub(super) class: Option<usize>,
    /// Axis order z, y, x.
    pub(super) shape: [usize; 3],
    pub(super) affine: Affine,
    pub(super) channels: Vec<Tones>,
    /// Whether intensities are whole numbers.
    pub(super) whole: bool,
    /// Voxels of each label value; `None` without a label map.
    pub(super) labels: Option<BTreeMap<u8, u64>>,
}

/// The distribution of the intensities of a channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tones {
    /// At the quantiles 0, 0.01, 0.5, 0.99 and 1.
    pub(super) quantiles: [f64; 5],
    pub(super) mean: f64,
    pub(super) sd: f64,
}

impl Likeness {
    /// Takes `cases` templates at equal distances, or all of them.
    pub(in super::super) fn of(inspection: &Inspection, cases: Option<usize>) -> Result<Self, StageError> {
        let rows = &inspection.cases;
        if rows.is_empty() {
            return Err(StageError::Data(
                "`like` is an inspection of no case: there is nothing to be like".into(),
            ));
        }
        let classes: Vec<String> = inspection.summary.classes.keys().cloned().collect();
        let labels: BTreeMap<u8, String> =
            inspection.summary.labels.iter().map(|label| (label.label, label.name.clone())).collect();
        let mut intensities: BTreeMap<&str, Vec<&IntensityRow>> = BTreeMap::new();
        inspection.intensities.iter().for_each(|row| intensities.entry(&row.case).or_default().push(row));
        let mut sizes: BTreeMap<&str, Vec<&LabelRow>> = BTreeMap::new();
        inspection.labels.iter().for_each(|row| sizes.entry(&row.case).or_default().push(row));
        let mut patients: BTreeMap<&str, usize> = BTreeMap::new();
        for row in rows {
            let next = patients.len();
            patients.entry(&row.patient).or_insert(next);
        }
        let templates: Result<Vec<Template>, StageError> = rows
            .iter()
            .map(|row| {
                template(
                    row,
                    patients[row.patient.as_str()],
                    intensities.get(row.case.as_str()).map_or(&[], Vec::as_slice),
                    sizes.get(row.case.as_str()).map_or(&[], Vec::as_slice),
                    &classes,
                )
            })
            .collect();
        let templates = templates?;
        if labels.is_empty() && !classes.is_empty() {
            let odd = templates
                .iter()
                .zip(rows)
                .find(|(template, _)| template.class.is_none() || template.shape[0] != 1);
            if let Some((_, row)) = odd {
                return Err(StageError::Data(format!(
                    "case `{}` of `like` is {}×{}×{} voxels (z×y×x) of {}: without label maps, only flat images that all have \
                     a class are made",
                    row.case,
                    row.shape_z,
                    row.shape_y,
                    row.shape_x,
                    row.class.as_ref().map_or("no class".into(), |class| format!("class `{class}`"))
                )));
            }
        }
        let templates = chosen(&templates, patients.len(), cases.unwrap_or(rows.len()));
        let most = rows.iter().max_by_key(|row| row.channels).map_or("", |row| row.case.as_str());
        let channels = intensities.get(most).into_iter().flatten().map(|row| row.channel.clone());
        Ok(Self { templates, channels: channels.collect(), labels, classes })
    }

    pub(super) fn template(&self, index: usize) -> &Template {
        &self.templates[index % self.templates.len()]
    }

    /// Whether every case is a picture with a class and nothing is segmented.
    pub(in super::super) fn is_classified(&self) -> bool {
        self.labels.is_empty() && !self.classes.is_empty()
    }
}

/// `count` of the templates at equal distances; more than there are begin again, with other patients.
fn chosen(templates: &[Template], patients: usize, count: usize) -> Vec<Template> {
    let all = templates.len();
    let one = |index: usize| {
        if count <= all {
            return templates[index * all / count].clone();
        }
        let template = templates[index % all].clone();
        Template { patient: template.patient + index / all * patients, ..template }
    };
    (0..count).map(one).collect()
}

fn template(
    row: &CaseRow,
    patient: usize,
    intensities: &[&IntensityRow],
    sizes: &[&LabelRow],
    classes: &[String],
) -> Result<Template, StageError> {
    let refuse =
        |why: String| StageError::Data(format!("case `{}` of `like` cannot be resembled: {why}", row.case));
    let shape = [row.shape_z, row.shape_y, row.shape_x];
    let voxels = shape.iter().try_fold(row.channels.max(1), |all, size| all.checked_mul(*size));
    if voxels.is_none_or(|voxels| voxels == 0 || voxels > MAX_VOXELS) {
        return Err(refuse(format!(
            "it has {}×{}×{} voxels (z×y×x) of {} channels, the limit is {MAX_VOXELS}",
            row.shape_z, row.shape_y, row.shape_x, row.channels
        )));
    }
    let spacing_mm = [row.spacing_z_mm, row.spacing_y_mm, row.spacing_x_mm];
    let affine = Affine::oriented(&row.orientation, spacing_mm)
        .filter(|affine| affine.defect().is_none())
        .ok_or_else(|| {
            refuse(format!("voxels of {spacing_mm:?} mm (z, y, x) in orientation `{}`", row.orientation))
        })?;
    let channels: Vec<Tones> = intensities
        .iter()
        .map(|row| Tones {
            quantiles: [row.min, row.p1, row.p50, row.p99, row.max],
            mean: row.mean,
            sd: row.sd,
        })
        .collect();
    if channels.is_empty() || channels.len() != row.channels {
        return Err(refuse(format!("{} of its {} channels have intensities", channels.len(), row.channels)));
    }
    if channels.iter().flat_map(|tones| tones.quantiles).any(|value| !value.is_finite()) {
        return Err(refuse("its intensities are not finite".into()));
    }
    let class = row.class.as_ref().map(|class| classes.iter().position(|known| known == class));
    let class = match class {
        Some(None) => return Err(refuse("its class is not among those of the summary".into())),
        known => known.flatten(),
    };
    let labels = row.foreground_voxels.map(|_| sizes.iter().map(|size| (size.label, size.voxels)).collect());
    Ok(Template { patient, class, shape, affine, channels, whole: !row.dtype.starts_with("float"), labels })
}

/// The names of patients, in which nothing of the real ones is left.
pub(super) fn patient_name(template: &Template) -> String {
    format!("patient_{:03}", template.patient + 1)
}

impl Likeness {
    /// How many patients there are.
    pub(super) fn patients(&self) -> usize {
        self.templates.iter().map(|template| template.patient).collect::<BTreeSet<_>>().len()
    }
}
