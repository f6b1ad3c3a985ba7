//! The training log as an artifact: the same for every run of a seed, so times stay out.

use crate::artifacts::training_log::{EpochRow, LabelDiceRow, LayerRow, TakenRow, TrainingLog};
use pipe_nn::{Score, Trained};
use std::collections::BTreeMap;

/// One row an epoch, one a validated epoch and foreground label, one an epoch and layer.
pub(super) fn training_log(
    trained: &Trained,
    labels: &BTreeMap<u8, String>,
    taken: Vec<TakenRow>,
) -> TrainingLog {
    let rows = trained.log.iter().map(|row| {
        let (accuracy, auc) = match row.validation.as_ref().map(|found| &found.score) {
            Some(Score::Classes { accuracy, auc }) => (Some(*accuracy), *auc),
            _ => (None, None),
        };
        EpochRow {
            epoch: row.epoch,
            loss: row.train_loss,
            learning_rate: row.learning_rate,
            gradient_norm: row.gradient_norm,
            validation_loss: row.validation.as_ref().map(|found| found.loss),
            validation_dice: row.validation.as_ref().and_then(pipe_nn::Validation::mean_dice),
            validation_accuracy: accuracy,
            validation_auc: auc,
        }
    });
    let dice = trained.log.iter().flat_map(|row| {
        let scores = match row.validation.as_ref().map(|found| &found.score) {
            Some(Score::Dice(scores)) => scores.as_slice(),
            _ => &[],
        };
        // Class 0 is the background; the others follow in order.
        let foreground = labels.iter().skip(1).zip(scores);
        foreground.map(|((label, name), dice)| LabelDiceRow {
            epoch: row.epoch,
            label: *label,
            name: name.clone(),
            dice: *dice,
        })
    });
    let layers = trained.layers.iter().map(|row| LayerRow {
        epoch: row.epoch,
        layer: row.layer.clone(),
        quantity: row.quantity,
        mean: row.mean,
        variance: row.variance,
        zeros: row.zeros,
    });
    TrainingLog { rows: rows.collect(), dice: dice.collect(), layers: layers.collect(), taken }
}
