//! From a table of probabilities to figures with intervals, curves, confusion and calibration.

use super::Params;
use super::figures::{Figure, figures};
use super::table::Table;
use super::words::definitions;
use crate::artifacts::class_metrics::{
    ClassComparison, ClassFigure, ClassMetrics, ClassSummary, CurveRow, MemberSpread, PairedTest,
    ReliabilityRow, SpreadRow,
};
use crate::artifacts::metrics::Interval;
use pipe_metrics::bootstrap::{Bootstrap, Distribution};
use pipe_metrics::classification::{CurvePoint, DeLong, McNemar, Probabilities, ReliabilityBin};
use pipe_metrics::summary::Summary;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A table and how its cases are drawn.
pub(super) struct Measure<'a> {
    table: &'a Table,
    params: &'a Params,
    bootstrap: Bootstrap,
    patients: usize,
    /// The patient of each case.
    patient_of: Vec<usize>,
}

impl<'a> Measure<'a> {
    pub(super) fn of(table: &'a Table, params: &'a Params) -> Self {
        let patients: BTreeSet<&str> = table.cases.iter().map(|case| case.patient.as_str()).collect();
        let positions: BTreeMap<&str, usize> = patients.into_iter().zip(0..).collect();
        let patient_of = table.cases.iter().map(|case| positions[case.patient.as_str()]).collect();
        let bootstrap =
            Bootstrap { resamples: params.resamples, level: params.confidence, ..Bootstrap::default() };
        Self { table, params, bootstrap, patients: positions.len(), patient_of }
    }

    /// All that is told of the table alone.
    pub(super) fn alone(&self) -> ClassMetrics {
        let (table, bins) = (self.table, self.params.bins);
        let found = &table.probabilities;
        let once = found.once();
        let metrics: Vec<ClassFigure> = figures(found, bins)
            .into_par_iter()
            .map(|(metric, class, of): Figure| ClassFigure {
                metric: metric.into(),
                class: class.map(|class| table.classes[class].clone()),
                value: finite(of(&once)),
                interval: self.interval(&of),
            })
            .collect();
        let reliability = found.reliability(bins, &once).into_iter().filter(|bin| bin.cases > 0);
        let curves = |of: &dyn Fn(usize) -> Vec<CurvePoint>| -> Vec<CurveRow> {
            let classes = table.classes.iter().enumerate();
            classes.flat_map(|(class, name)| curve(name, of(class))).collect()
        };
        ClassMetrics {
            cases: table.cases.clone(),
            reliability: reliability.map(reliability_row).collect(),
            roc: curves(&|class| found.roc_curve(class)),
            pr: curves(&|class| found.pr_curve(class)),
            summary: ClassSummary {
                cases: table.cases.len(),
                patients: self.patients,
                classes: table.classes.clone(),
                metrics,
                comparison: Vec::new(),
                members: None,
                confusion: found.decisions(&once).counts,
                confidence: self.params.confidence,
                resamples: self.params.resamples,
                bins,
                definitions: definitions(&table.classes),
            },
        }
    }

    /// Every figure of all classes against that of a baseline on the same cases.
    pub(super) fn against(&self, baseline: &Probabilities) -> Vec<ClassComparison> {
        let (own, bins) = (&self.table.probabilities, self.params.bins);
        // Of more classes the area is a mean, for which DeLong has no formula.
        let delong = (own.classes() == 2).then(|| DeLong::of(baseline, own, 1).p);
        let mcnemar = McNemar::of(baseline, own).p;
        // Both take cases as independent.
        let independent = self.patients == self.table.cases.len();
        let test = |metric: &str| -> Option<PairedTest> {
            let (name, p) = match metric {
                "auc_roc" => ("DeLong", delong?),
                "accuracy" => ("McNemar", mcnemar),
                _ => return None,
            };
            independent.then(|| PairedTest { name: name.into(), p: finite(p) })
        };
        let once = own.once();
        let pairs: Vec<(Figure, Figure)> =
            overall(own, bins).into_iter().zip(overall(baseline, bins)).collect();
        let row = |((metric, _, here), (_, _, there)): (Figure, Figure)| {
            let distribution = self.distribution(&|times| here(times) - there(times));
            let (value, other) = (here(&once), there(&once));
            let enough = self.patients > 1;
            ClassComparison {
                metric: metric.into(),
                value: finite(value),
                baseline: finite(other),
                difference: finite(value - other),
                interval: Interval::finite(distribution.interval(self.bootstrap.level).filter(|_| enough)),
                p_bootstrap: finite(distribution.p_of_zero()).filter(|_| enough),
                test: test(metric),
            }
        };
        pairs.into_par_iter().map(row).collect()
    }

    /// Every figure of all classes over the members, and how far the table is from their mean.
    pub(super) fn beside(&self, members: &[(String, Probabilities)]) -> MemberSpread {
        let bins = self.params.bins;
        let once = self.table.probabilities.once();
        let of_members: Vec<Vec<Figure>> = members.iter().map(|(_, found)| overall(found, bins)).collect();
        let row = |(index, (metric, _, own)): (usize, Figure)| {
            let mean = |times: &[u32]| {
                of_members.iter().map(|figures| (figures[index].2)(times)).sum::<f64>() / members.len() as f64
            };
            let values: Vec<f64> = of_members.iter().map(|figures| (figures[index].2)(&once)).collect();
            let spread = Summary::of(&values);
            SpreadRow {
                metric: metric.into(),
                mean: finite(mean(&once)),
                sd: finite(spread.sd),
                min: finite(spread.min),
                max: finite(spread.max),
                difference: finite(own(&once) - mean(&once)),
                interval: self.interval(&|times: &[u32]| own(times) - mean(times)),
                values: values.into_iter().map(finite).collect(),
            }
        };
        let own = overall(&self.table.probabilities, bins);
        MemberSpread {
            names: members.iter().map(|(name, _)| name.clone()).collect(),
            rows: own.into_par_iter().enumerate().map(row).collect(),
        }
    }

    fn interval(&self, of: &dyn Fn(&[u32]) -> f64) -> Option<Interval> {
        let found = (self.patients > 1).then(|| self.distribution(of))?;
        Interval::finite(found.interval(self.bootstrap.level))
    }

    /// The values of a figure over resampled patients, with all of their cases.
    fn distribution(&self, of: &dyn Fn(&[u32]) -> f64) -> Distribution {
        let mut times = vec![0; self.patient_of.len()];
        self.bootstrap.distribution(self.patients, |drawn| {
            times.iter_mut().zip(&self.patient_of).for_each(|(times, &patient)| *times = drawn[patient]);
            of(&times)
        })
    }
}

/// The figures of all classes together.
fn overall(found: &Probabilities, bins: usize) -> Vec<Figure<'_>> {
    figures(found, bins).into_iter().filter(|(_, class, _)| class.is_none()).collect()
}

fn curve(class: &str, points: Vec<CurvePoint>) -> impl Iterator<Item = CurveRow> {
    points.into_iter().map(move |CurvePoint { threshold, x, y }| CurveRow {
        class: class.to_owned(),
        threshold: finite(threshold),
        x,
        y,
    })
}

fn reliability_row(bin: ReliabilityBin) -> ReliabilityRow {
    let ReliabilityBin { from, to, cases, confidence, observed } = bin;
    ReliabilityRow { from, to, cases, confidence, observed }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
