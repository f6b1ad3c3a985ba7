//! The labelled cases of one side of a fold, read one by one as the training asks for them.

use crate::artifacts::Volumes;
use crate::context::StageContext;
use crate::error::StageError;
use pipe_nn::{Case, CaseSource};
use std::collections::BTreeMap;

/// Label values of the files become class indices in the order of `labels`.
pub(super) struct FoldSource<'a> {
    volumes: &'a Volumes,
    ids: Vec<&'a str>,
    /// Class of each label value; `None` for a value that the data set does not declare.
    classes: [Option<u8>; 256],
}

impl<'a> FoldSource<'a> {
    /// Cases without a label are left out, with a warning that counts them.
    pub(super) fn new(
        volumes: &'a Volumes,
        ids: &[&'a str],
        labels: &BTreeMap<u8, String>,
        context: &StageContext,
    ) -> Result<Self, StageError> {
        let mut labelled = Vec::with_capacity(ids.len());
        for id in ids {
            if volumes.row(id)?.label.is_some() {
                labelled.push(*id);
            }
        }
        let left_out = ids.len() - labelled.len();
        if left_out > 0 {
            context.warn(format!("{left_out} of {} cases have no label and are left out", ids.len()));
        }
        let mut classes = [None; 256];
        for (class, value) in labels.keys().enumerate() {
            classes[usize::from(*value)] = Some(class as u8);
        }
        Ok(Self { volumes, ids: labelled, classes })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    /// Image channels, the same in every case.
    pub(super) fn channels(&self) -> Result<usize, StageError> {
        let first = self.volumes.row(self.ids[0])?;
        for id in &self.ids {
            let row = self.volumes.row(id)?;
            if row.channels != first.channels {
                return Err(StageError::Data(format!(
                    "case `{}` has {} channels but case `{}` has {}",
                    row.id, row.channels, first.id, first.channels
                )));
            }
        }
        Ok(first.channels)
    }

    fn read(&self, id: &str) -> Result<Case, StageError> {
        let image = self.volumes.image(id)?;
        let label = self.volumes.label(id)?;
        let label = label.ok_or_else(|| StageError::Data(format!("case `{id}` has no label")))?;
        if image.shape() != label.shape() {
            return Err(StageError::Data(format!(
                "image of case `{id}` is {} but its label is {}",
                image.shape(),
                label.shape()
            )));
        }
        let class = |value: &u8| {
            self.classes[usize::from(*value)].ok_or_else(|| {
                StageError::Data(format!(
                    "label of case `{id}` holds {value}, which the data set does not declare"
                ))
            })
        };
        let classes = label.as_slice().iter().map(class).collect::<Result<Vec<u8>, _>>()?;
        Ok(Case {
            id: id.to_owned(),
            shape: image.shape().0,
            image: image.as_slice().into(),
            label: classes.into(),
        })
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
