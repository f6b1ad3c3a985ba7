//! The labelled cases of one side of a fold, read one by one as the training asks for them.

use super::label_names;
use crate::artifacts::{CaseTable, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::listing::counted;
use pipe_nn::{Case, CaseSource};
use std::collections::{BTreeMap, BTreeSet};

/// What the network learns to tell, as class indices.
pub(super) enum Targets {
    /// A class for each voxel.
    Voxels {
        names: BTreeMap<u8, String>,
        /// Class of each label value; `None` for a value that the data set does not declare.
        classes: Box<[Option<u8>; 256]>,
    },
    /// A class for each case.
    Cases { names: BTreeMap<u8, String>, of_case: BTreeMap<String, u8> },
}

impl Targets {
    /// Label values of the files become class indices in the order of the values.
    pub(super) fn voxels(volumes: &Volumes) -> Result<Self, StageError> {
        let names = label_names(volumes)?;
        let mut classes = Box::new([None; 256]);
        for (class, value) in names.keys().enumerate() {
            classes[usize::from(*value)] = Some(class as u8);
        }
        Ok(Self::Voxels { names, classes })
    }

    /// Classes of the case table become indices in the order of their names.
    pub(super) fn classes(cases: Option<&CaseTable>) -> Result<Self, StageError> {
        let Some(table) = cases else {
            let text = "a network that classifies needs the classes of the cases: wire `cases` to the stage that \
                        imported them";
            return Err(StageError::Data(text.into()));
        };
        let found = table.cases.iter().filter_map(|case| case.class.as_deref());
        let distinct: BTreeSet<&str> = found.collect();
        if !(2..=255).contains(&distinct.len()) {
            let listed: Vec<&str> = distinct.iter().take(5).copied().collect();
            let listed = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
            return Err(StageError::Data(format!(
                "a network that classifies needs cases of 2 to 255 classes, and the wired `cases` have {} ({listed}): the \
                 column `class` of a table gives them, or `classes` of an archive",
                distinct.len(),
            )));
        }
        let index = |class: &str| distinct.iter().position(|known| *known == class).map(|index| index as u8);
        let of_case =
            table.cases.iter().filter_map(|case| Some((case.id.clone(), index(case.class.as_deref()?)?)));
        let names = distinct.iter().enumerate().map(|(index, name)| (index as u8, (*name).to_owned()));
        Ok(Self::Cases { names: names.collect(), of_case: of_case.collect() })
    }

    /// The names of the classes, background included where there is one; by label value, or by index.
    pub(super) fn names(&self) -> &BTreeMap<u8, String> {
        match self {
            Self::Voxels { names, .. } | Self::Cases { names, .. } => names,
        }
    }
}

pub(super) struct FoldSource<'a> {
    volumes: &'a Volumes,
    ids: Vec<&'a str>,
    targets: &'a Targets,
}

impl<'a> FoldSource<'a> {
    /// Cases without a label, or without a class, are left out, with a warning that counts them.
    pub(super) fn new(
        volumes: &'a Volumes,
        ids: &[&'a str],
        targets: &'a Targets,
        context: &StageContext,
    ) -> Result<Self, StageError> {
        let mut labelled = Vec::with_capacity(ids.len());
        for id in ids {
            let known = match targets {
                Targets::Voxels { .. } => volumes.row(id)?.label.is_some(),
                Targets::Cases { of_case, .. } => of_case.contains_key(*id),
            };
            if known {
                labelled.push(*id);
            }
        }
        let left_out = ids.len() - labelled.len();
        if left_out > 0 {
            let what = if matches!(targets, Targets::Voxels { .. }) { "label" } else { "class" };
            context.warn(format!("{left_out} of {} cases have no {what} and are left out", ids.len()));
        }
        Ok(Self { volumes, ids: labelled, targets })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &'a str> {
        self.ids.iter().copied()
    }

    /// Image channels, the same in every case.
    pub(super) fn channels(&self) -> Result<usize, StageError> {
        let first = self.volumes.row(self.ids[0])?;
        for id in &self.ids {
            let row = self.volumes.row(id)?;
            if row.channels != first.channels {
                return Err(StageError::Data(format!(
                    "case `{}` has {} but case `{}` has {}",
                    row.id,
                    counted(row.channels, "channel"),
                    first.id,
                    first.channels
                )));
            }
        }
        Ok(first.channels)
    }

    fn read(&self, id: &str) -> Result<Case, StageError> {
        let image = self.volumes.image(id)?;
        let label = match self.targets {
            Targets::Voxels { classes, .. } => self.read_label(id, image.shape(), classes)?,
            Targets::Cases { of_case, .. } => vec![of_case[id]],
        };
        Ok(Case {
            id: id.to_owned(),
            shape: image.shape().0,
            image: image.as_slice().into(),
            label: label.into(),
        })
    }

    /// The class of each voxel.
    fn read_label(
        &self,
        id: &str,
        shape: pipe_imaging::Shape,
        classes: &[Option<u8>; 256],
    ) -> Result<Vec<u8>, StageError> {
        let label = self.volumes.label(id)?;
        let label = label.ok_or_else(|| StageError::Data(format!("case `{id}` has no label")))?;
        if shape != label.shape() {
            return Err(StageError::Data(format!(
                "image of case `{id}` is {shape} but its label is {}",
                label.shape()
            )));
        }
        let class = |value: &u8| {
            classes[usize::from(*value)].ok_or_else(|| {
                StageError::Data(format!(
                    "label of case `{id}` holds {value}, which the data set does not declare"
                ))
            })
        };
        label.as_slice().iter().map(class).collect()
    }
}

impl CaseSource for FoldSource<'_> {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn load(&self, index: usize) -> Result<Case, pipe_nn::LoadError> {
        Ok(self.read(self.ids[index])?)
    }
}
