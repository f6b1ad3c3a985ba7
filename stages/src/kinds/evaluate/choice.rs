//! Which cases are predicted, and by which members: never a case by a network that was trained on it.

use super::EvaluatedPart;
use crate::artifacts::predictor::Predictor;
use crate::artifacts::{FoldTable, VolumeRow, Volumes};
use crate::error::StageError;
use std::collections::BTreeSet;

/// One case and who predicts it.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) row: &'a VolumeRow,
    /// The fold in which it is validated; `None` for a test case.
    pub(crate) fold: Option<usize>,
    /// Positions in the predictor; at least one.
    pub(crate) members: Vec<usize>,
}

/// The cases of the chosen part, sorted by id; `fold`: only the validation cases of this one.
pub(crate) fn choose<'a>(
    part: EvaluatedPart,
    fold: Option<usize>,
    split: &FoldTable,
    predictor: &Predictor,
    volumes: &'a Volumes,
) -> Result<Vec<Job<'a>>, StageError> {
    let mut jobs = Vec::new();
    if part != EvaluatedPart::Validation {
        for id in split.test() {
            jobs.push(Job {
                row: row(volumes, id)?,
                fold: None,
                members: (0..predictor.members.len()).collect(),
            });
        }
    }
    if part != EvaluatedPart::Test {
        for fold in folds(fold, predictor)? {
            let members = members_without(fold, predictor);
            for id in split.validation(fold)? {
                jobs.push(Job { row: row(volumes, id)?, fold: Some(fold), members: members.clone() });
            }
        }
    }
    if jobs.is_empty() {
        return Err(StageError::Data(match part {
            EvaluatedPart::Test => {
                "the split has no test cases: set `test` of the split above 0, or evaluate with \
                                    `part: validation`"
                    .into()
            }
            part => format!("no case of the split belongs to `part: {}`", part.name()),
        }));
    }
    jobs.sort_by(|a, b| a.row.id.cmp(&b.row.id));
    Ok(jobs)
}

fn row<'a>(volumes: &'a Volumes, id: &str) -> Result<&'a VolumeRow, StageError> {
    volumes.row(id).map_err(StageError::inner(format!("looking for case `{id}` of the split")))
}

/// The folds to validate: the one asked for, or all that members left out.
fn folds(only: Option<usize>, predictor: &Predictor) -> Result<BTreeSet<usize>, StageError> {
    let left_out: BTreeSet<usize> = predictor.members.iter().filter_map(|member| member.card.fold).collect();
    if left_out.is_empty() {
        return Err(StageError::Data(
            "no network says which fold it left out in training, so validation cases may be its training cases: use \
             `part: test`, or say `fold` where the model is imported"
                .into(),
        ));
    }
    match only {
        None => Ok(left_out),
        Some(fold) if left_out.contains(&fold) => Ok([fold].into()),
        Some(fold) => {
            let known: Vec<String> = left_out.iter().map(ToString::to_string).collect();
            Err(StageError::Data(format!(
                "no network left fold {fold} out in training, only fold {}: its scores would be those of training \
                 cases",
                known.join(", ")
            )))
        }
    }
}

fn members_without(fold: usize, predictor: &Predictor) -> Vec<usize> {
    let members = predictor.members.iter().enumerate();
    members.filter(|(_, member)| member.card.fold == Some(fold)).map(|(index, _)| index).collect()
}
