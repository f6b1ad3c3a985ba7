//! The part of the results that says what joining networks was worth.

use super::figures::{count, fixed, optional, percent};
use super::markup::{Element, element, name, number, table};
use super::results::span;
use crate::artifacts::MetricsSummary;

/// Nothing unless members were scored by themselves.
pub(super) fn section(summary: &MetricsSummary) -> Vec<Element> {
    let Some(ensemble) = &summary.ensemble else { return Vec::new() };
    let rows = ensemble.members.iter().map(|member| {
        element("tr")
            .child(element("td").child(name(&member.name)))
            .child(number("td", member.cases.to_string()))
            .child(number("td", optional(member.mean_foreground_dice, 4)))
    });
    let columns = ["Network alone", "#Cases", "#Mean foreground Dice"].map(String::from);
    let verdict = match (ensemble.difference, &ensemble.interval) {
        (Some(difference), Some(interval)) => {
            let sign = if interval.low > 0.0 {
                "The ensemble is better than its members are on average"
            } else if interval.high < 0.0 {
                "The ensemble is worse than its members are on average"
            } else {
                "The ensemble and its members cannot be told apart"
            };
            format!(
                "{sign}: {} against {}, a difference of {} ({} interval over patients {}).",
                optional(ensemble.ensemble, 4),
                optional(ensemble.mean_of_members, 4),
                fixed(difference, 4),
                percent(summary.rules.confidence),
                span(interval, 4)
            )
        }
        _ => format!(
            "The ensemble has {}, the mean of its {} is {}; there are too few patients for an interval.",
            optional(ensemble.ensemble, 4),
            count(ensemble.members.len(), "member", "members"),
            optional(ensemble.mean_of_members, 4)
        ),
    };
    vec![
        element("h3").text("Ensemble and members"),
        element("p").text(verdict),
        table(&columns, [element("tbody").children(rows)]),
    ]
}
