//! Measures every case, tells which stand out and what follows for the rest of the pipeline. Changes nothing.

mod advice;
pub(crate) mod lightbox;
mod measure;
mod outliers;
mod plots;

use self::advice::Evidence;
use self::lightbox::Caption;
use self::measure::Measured;
use self::outliers::{Judged, Quantity, brief};
use crate::artifact::{In, Out, Ports, Resources};
use crate::artifacts::table_file::seven_digits;
use crate::artifacts::{
    Case, CaseRow, CaseTable, Inspection, InspectionSummary, IntensityRow, LabelRow, LabelSummary, Outlier,
};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::Stage;
use fs_err as fs;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

pub struct Inspect;

pub const CASES: In<CaseTable> = In::new("cases");
pub const INSPECTION: Out<Inspection> = Out::new("inspection");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Number of cases in the picture: cases that stand out first, then others at equal distances.
    pub lightbox: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self { lightbox: 24 }
    }
}

impl Stage for Inspect {
    const KIND: &'static str = "inspect";
    const VERSION: u32 = 4;
    const SUMMARY: &'static str = "Measures images and label maps, finds cases that stand out and advises on crop, spacing and normalisation.";
    type Params = Params;

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads(&CASES).writes(&INSPECTION).needs(Resources::PARALLEL);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let table = context.read(&CASES)?;
        let measured = measure_all(&table, context)?;
        let inspection = inspect(&table, &measured, params, context)?;
        context.fact("cases", table.cases.len());
        context.fact("outliers", outlier_cases(&inspection.summary.outliers).len());
        for advice in &inspection.summary.advice {
            context.note(format!("{}: {} ({})", advice.about, advice.advice, advice.reason));
        }
        context.write(&INSPECTION, &inspection)
    }
}

fn measure_all(table: &CaseTable, context: &StageContext) -> Result<Vec<Measured>, StageError> {
    let done = AtomicUsize::new(0);
    let measure = |(index, case): (usize, &Case)| {
        let measured = measure::measure(case, &tile_dir(index, context), context)?;
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        context.progress(done, table.cases.len(), "cases", case.id.as_str());
        Ok(measured)
    };
    table.cases.par_iter().enumerate().map(measure).collect()
}

fn tile_dir(index: usize, context: &StageContext) -> PathBuf {
    context.scratch.join(index.to_string())
}

fn inspect(
    table: &CaseTable,
    measured: &[Measured],
    params: &Params,
    context: &StageContext,
) -> Result<Inspection, StageError> {
    let pairs: Vec<(&Case, &Measured)> = table.cases.iter().zip(measured).collect();
    let mut cases: Vec<CaseRow> = pairs.iter().map(|(case, measured)| case_row(case, measured)).collect();
    let intensities: Vec<IntensityRow> =
        pairs.iter().flat_map(|(case, measured)| intensity_rows(table, case, measured)).collect();
    let labels: Vec<LabelRow> =
        pairs.iter().flat_map(|(case, measured)| label_rows(table, case, measured)).collect();
    let label_summaries = summarise_labels(table, &cases, &labels);
    let quantities = quantities(&cases, &intensities, &labels);
    let mut outliers: Vec<Outlier> = quantities.iter().flat_map(Quantity::outliers).collect();
    outliers.extend(structural_outliers(&cases, &labels, &label_summaries));
    outliers.sort_by(|a, b| (&a.case, &a.quantity).cmp(&(&b.case, &b.quantity)));
    for row in &mut cases {
        let reasons =
            outliers.iter().filter(|outlier| outlier.case == row.case).map(|outlier| outlier.reason.as_str());
        row.outlier = reasons.collect::<Vec<_>>().join("; ");
    }
    let boxes: Vec<[usize; 3]> = measured.iter().filter_map(|measured| measured.foreground_box).collect();
    let evidence = Evidence {
        cases: &cases,
        intensities: &intensities,
        labels: &label_summaries,
        boxes: &boxes,
        classes: &classes(table),
    };
    let summary = InspectionSummary {
        dataset: table.dataset.name.clone(),
        cases: table.cases.len(),
        patients: table.patients().len(),
        classes: classes(table),
        advice: if cases.is_empty() { Vec::new() } else { advice::advise(&evidence) },
        distributions: quantities
            .iter()
            .filter_map(|all| Some((all.name.clone(), all.distribution()?)))
            .collect(),
        labels: label_summaries,
        outliers,
    };
    let lightbox = draw_lightbox(table, &summary.outliers, params, context)?;
    let plots = plots::draw(&summary.classes, &quantities);
    Ok(Inspection { cases, intensities, labels, summary, lightbox, plots })
}

/// Cases of each class; empty where nothing is classified.
fn classes(table: &CaseTable) -> BTreeMap<String, usize> {
    let mut classes = BTreeMap::new();
    for class in table.cases.iter().filter_map(|case| case.class.clone()) {
        *classes.entry(class).or_default() += 1;
    }
    classes
}

fn case_row(case: &Case, measured: &Measured) -> CaseRow {
    let [shape_z, shape_y, shape_x] = case.shape;
    let [spacing_z_mm, spacing_y_mm, spacing_x_mm] = case.spacing_mm;
    let voxels: Option<u64> =
        case.label.as_ref().map(|_| measured.labels.values().map(|extent| extent.voxels).sum());
    CaseRow {
        case: case.id.clone(),
        patient: case.patient.clone(),
        class: case.class.clone(),
        shape_z,
        shape_y,
        shape_x,
        spacing_z_mm,
        spacing_y_mm,
        spacing_x_mm,
        orientation: case.orientation.clone(),
        dtype: case.dtype.clone(),
        channels: case.channels,
        foreground_voxels: voxels,
        foreground_ml: voxels.map(|voxels| ml(case, voxels)),
        foreground_share: voxels
            .map(|voxels| seven_digits(voxels as f64 / (shape_z * shape_y * shape_x) as f64)),
        border_voxels: measured.border_voxels,
        outlier: String::new(),
    }
}

/// Millilitres of so many voxels.
fn ml(case: &Case, voxels: u64) -> f64 {
    seven_digits(voxels as f64 * case.spacing_mm.iter().product::<f64>() / 1000.0)
}

fn intensity_rows(table: &CaseTable, case: &Case, measured: &Measured) -> Vec<IntensityRow> {
    let name = |channel: usize| {
        table.dataset.channels.get(channel).cloned().unwrap_or_else(|| format!("channel {channel}"))
    };
    let rows = measured.channels.iter().enumerate().map(|(channel, figures)| IntensityRow {
        case: case.id.clone(),
        channel: name(channel),
        min: figures.min,
        p1: figures.p1,
        p50: figures.p50,
        p99: figures.p99,
        max: figures.max,
        mean: figures.mean,
        sd: figures.sd,
    });
    rows.collect()
}

fn label_rows(table: &CaseTable, case: &Case, measured: &Measured) -> Vec<LabelRow> {
    if case.label.is_none() {
        return Vec::new();
    }
    let rows = table.dataset.foreground().map(|(label, name)| {
        let extent = measured.labels.get(&label);
        let voxels = extent.map_or(0, |extent| extent.voxels);
        LabelRow {
            case: case.id.clone(),
            label,
            name: name.to_owned(),
            voxels,
            ml: ml(case, voxels),
            components: extent.map_or(0, |extent| extent.components),
            largest_component_voxels: extent.map_or(0, |extent| extent.largest),
        }
    });
    rows.collect()
}

fn summarise_labels(table: &CaseTable, cases: &[CaseRow], rows: &[LabelRow]) -> Vec<LabelSummary> {
    let labelled = cases.iter().filter(|row| row.foreground_voxels.is_some());
    let all: usize = labelled.map(|row| row.shape_z * row.shape_y * row.shape_x).sum();
    let summarise = |(label, name): (u8, &str)| {
        let own: Vec<&LabelRow> = rows.iter().filter(|row| row.label == label).collect();
        let voxels: u64 = own.iter().map(|row| row.voxels).sum();
        LabelSummary {
            label,
            name: name.to_owned(),
            cases: own.iter().filter(|row| row.voxels > 0).count(),
            voxel_share: seven_digits(voxels as f64 / all.max(1) as f64),
            in_pieces: own.iter().filter(|row| row.components > 1).count(),
        }
    };
    table.dataset.foreground().map(summarise).collect()
}

type Figure = fn(&CaseRow) -> f64;

/// Everything whose distribution is of interest, in a fixed order.
fn quantities(cases: &[CaseRow], intensities: &[IntensityRow], labels: &[LabelRow]) -> Vec<Quantity> {
    use Judged::{ByDifference, ByFactor, Never};
    let mut quantities = Vec::new();
    let mut add = |name: String, judged: Judged, values: Vec<(String, f64)>| {
        quantities.push(Quantity { name, judged, values });
    };
    let geometry: [(&str, Judged, Figure); 7] = [
        ("spacing z (mm)", ByDifference, |row| row.spacing_z_mm),
        ("spacing y (mm)", ByDifference, |row| row.spacing_y_mm),
        ("spacing x (mm)", ByDifference, |row| row.spacing_x_mm),
        ("field of view z (mm)", ByFactor, |row| row.spacing_z_mm * row.shape_z as f64),
        ("field of view y (mm)", ByFactor, |row| row.spacing_y_mm * row.shape_y as f64),
        ("field of view x (mm)", ByFactor, |row| row.spacing_x_mm * row.shape_x as f64),
        ("voxels", ByFactor, |row| (row.shape_z * row.shape_y * row.shape_x) as f64),
    ];
    for (name, judged, of) in geometry {
        add(name.into(), judged, cases.iter().map(|row| (row.case.clone(), of(row))).collect());
    }
    let channels: BTreeSet<&str> = intensities.iter().map(|row| row.channel.as_str()).collect();
    for channel in channels {
        let own = || intensities.iter().filter(|row| row.channel == channel);
        let scale = own().filter(|row| row.p99 > row.p1).map(|row| (row.case.clone(), row.p99 - row.p1));
        add(format!("intensity range of {channel}"), ByFactor, scale.collect());
        let level =
            own().filter(|row| row.sd > 0.0).map(|row| (row.case.clone(), (row.p50 - row.p1) / row.sd));
        add(format!("median of {channel} above its 1st percentile (sd)"), ByDifference, level.collect());
    }
    let mut volumes: BTreeMap<(u8, &str), Vec<(String, f64)>> = BTreeMap::new();
    for row in labels.iter().filter(|row| row.voxels > 0) {
        volumes.entry((row.label, &row.name)).or_default().push((row.case.clone(), row.ml));
    }
    for ((_, name), values) in volumes {
        add(format!("volume of {name} (ml)"), ByFactor, values);
    }
    let share = cases
        .iter()
        .filter_map(|row| Some((row.case.clone(), row.foreground_share.filter(|share| *share > 0.0)?)));
    add("foreground share".into(), ByFactor, share.collect());
    let border = cases.iter().filter_map(|row| Some((row.case.clone(), row.border_voxels? as f64)));
    // Whatever does not touch the border is fine.
    add("foreground to border (voxels)".into(), Never, border.collect());
    quantities
}

/// Cases that differ in kind, not by a number.
fn structural_outliers(cases: &[CaseRow], labels: &[LabelRow], summaries: &[LabelSummary]) -> Vec<Outlier> {
    let outlier = |case: &str, quantity: &str, reason: String| Outlier {
        case: case.to_owned(),
        quantity: quantity.to_owned(),
        reason,
        robust_z: None,
    };
    let mut found = Vec::new();
    let usual = most_frequent(cases.iter().map(|row| row.orientation.as_str()));
    for row in cases {
        if row.orientation != usual {
            found.push(outlier(
                &row.case,
                "orientation",
                format!("is stored as {}, usually {usual}", row.orientation),
            ));
        }
        if row.border_voxels == Some(0) {
            found.push(outlier(&row.case, "border", "the foreground touches the border of the image".into()));
        }
        if row.foreground_voxels == Some(0) {
            found.push(outlier(&row.case, "foreground", "the label map is empty".into()));
        }
    }
    for summary in summaries {
        let own = labels.iter().filter(|row| row.label == summary.label);
        let (name, all) = (&summary.name, own.clone().count());
        for row in own {
            if row.components > 1 && summary.in_pieces * 10 <= summary.cases {
                let share = 100.0 * row.largest_component_voxels as f64 / row.voxels as f64;
                let reason =
                    format!("`{name}` is in {} pieces, the largest has {} %", row.components, brief(share));
                found.push(outlier(&row.case, "components", reason));
            }
            if row.voxels == 0 && summary.cases * 10 >= all * 9 {
                found.push(outlier(
                    &row.case,
                    "labels",
                    format!("`{name}` is absent, found in {} of {all} cases", summary.cases),
                ));
            }
        }
    }
    found
}

/// The value that occurs most often; the first in alphabetical order among equals.
fn most_frequent<'a>(values: impl Iterator<Item = &'a str>) -> &'a str {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map_or("", |(value, _)| value)
}

fn outlier_cases(outliers: &[Outlier]) -> BTreeSet<&str> {
    outliers.iter().map(|outlier| outlier.case.as_str()).collect()
}

fn draw_lightbox(
    table: &CaseTable,
    outliers: &[Outlier],
    params: &Params,
    context: &StageContext,
) -> Result<String, StageError> {
    let outliers = outlier_cases(outliers);
    let chosen = choose(table, &outliers, params.lightbox);
    let mut captions = Vec::new();
    let mut tiles = Vec::new();
    for index in chosen {
        let path = tile_dir(index, context).join(lightbox::TILE_FILE);
        tiles.push(fs::read(&path).map_err(StageError::io("read", &path))?);
        let case = table.cases[index].id.as_str();
        captions.push(Caption { case, outlier: outliers.contains(case) });
    }
    lightbox::draw(&captions, &tiles, &table.dataset.foreground().collect::<Vec<_>>())
}

/// Indices of at most `count` cases in order: outliers in up to half of the places, the rest evenly spread.
fn choose(table: &CaseTable, outliers: &BTreeSet<&str>, count: usize) -> BTreeSet<usize> {
    let is_outlier = |index: &usize| outliers.contains(table.cases[*index].id.as_str());
    let (odd, usual): (Vec<usize>, Vec<usize>) = (0..table.cases.len()).partition(is_outlier);
    let places = odd.len().min(count.div_ceil(2).max(count.saturating_sub(usual.len())));
    let spread = |of: &[usize], count: usize| {
        let count = count.min(of.len());
        (0..count).map(|place| of[place * of.len() / count]).collect::<Vec<_>>()
    };
    spread(&odd, places).into_iter().chain(spread(&usual, count - places)).collect()
}

#[cfg(test)]
mod tests;
