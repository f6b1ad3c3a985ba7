//! The training log as an artifact: the same for every run of a seed, so times stay out.

use crate::artifacts::training_log::{EpochRow, LabelDiceRow, TrainingLog};
use std::collections::BTreeMap;

/// One row an epoch, and one row a validated epoch and foreground label.
pub(super) fn training_log(log: &[pipe_nn::EpochRow], labels: &BTreeMap<u8, String>) -> TrainingLog {
    let rows = log.iter().map(|row| EpochRow {
        epoch: row.epoch,
        loss: row.train_loss,
        learning_rate: row.learning_rate,
        gradient_norm: row.gradient_norm,
        validation_loss: None,
        validation_dice: row.mean_dice,
    });
    let dice = log.iter().flat_map(|row| {
        // Class 0 is the background; the others follow in order.
        let foreground = labels.iter().skip(1).zip(&row.validation_dice);
        foreground.map(|((label, name), dice)| LabelDiceRow {
            epoch: row.epoch,
            label: *label,
            name: name.clone(),
            dice: *dice,
        })
    });
    TrainingLog { rows: rows.collect(), dice: dice.collect() }
}
