//! The cases that were put in a wrong class with the most confidence, with their images where they are at hand.

use super::super::figures::{count, fixed};
use super::super::markup::{Element, element, name};
use crate::artifacts::Volumes;
use crate::artifacts::class_metrics::{ClassMetrics, ClassifiedCase};
use crate::error::StageError;
use crate::kinds::inspect::lightbox;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Mistakes that are shown.
const SHOWN: usize = 12;

/// A case in a wrong class.
pub(in super::super) struct Mistake {
    case: ClassifiedCase,
    /// A PNG file as the address of an image.
    picture: Option<String>,
}

impl Mistake {
    /// The strongest of all, the most confident first.
    pub(in super::super) fn strongest(
        metrics: &ClassMetrics,
        volumes: Option<&Volumes>,
    ) -> Result<Vec<Self>, StageError> {
        let mut wrong: Vec<&ClassifiedCase> = wrong(metrics).collect();
        wrong.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.case.cmp(&b.case)));
        let mistake = |case: &ClassifiedCase| {
            let picture = volumes.map(|volumes| picture(volumes, &case.case)).transpose()?;
            Ok(Self { case: case.clone(), picture })
        };
        wrong.into_iter().take(SHOWN).map(mistake).collect()
    }
}

fn wrong(metrics: &ClassMetrics) -> impl Iterator<Item = &ClassifiedCase> {
    metrics.cases.iter().filter(|case| case.predicted != case.truth)
}

/// The prepared image as a network saw it, all of its own range of values; of a volume the middle slice.
fn picture(volumes: &Volumes, id: &str) -> Result<String, StageError> {
    let image = volumes.image(id)?;
    let ends = image.as_slice().iter().filter(|value| value.is_finite()).fold(None, |ends, &value| {
        let (low, high) = ends.unwrap_or((value, value));
        Some((value.min(low), value.max(high)))
    });
    let (low, high) = ends.unwrap_or((0.0, 1.0));
    let tile = lightbox::tile(&image, None, [f64::from(low), f64::from(high)]);
    let png = lightbox::png(&tile, lightbox::TILE, lightbox::TILE)?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(png)))
}

pub(super) fn section(metrics: &ClassMetrics, mistakes: &[Mistake]) -> Vec<Element> {
    let heading = element("h3").text("Strongest mistakes");
    let all = wrong(metrics).count();
    if all == 0 {
        return vec![heading, element("p").text("Every case was put in its class.")];
    }
    let tile = |mistake: &Mistake| {
        let ClassifiedCase { case, truth, predicted, probability, .. } = &mistake.case;
        let picture = mistake
            .picture
            .as_ref()
            .map(|picture| element("img").with("src", picture).with("alt", format!("Image of case {case}")));
        let text = element("figcaption")
            .child(element("strong").child(name(case)))
            .child(element("br"))
            .child(name(predicted))
            .text(format!(" {}", fixed(*probability, 3)))
            .child(element("br"))
            .text("is ")
            .child(name(truth));
        element("figure").children(picture).child(text)
    };
    let shown = if all > mistakes.len() {
        format!("; the {} most confident are shown", mistakes.len())
    } else {
        String::new()
    };
    let text = format!(
        "{} in a wrong class{shown}. Each has the predicted class with its probability, and what the case is.",
        count(all, "case is", "cases are")
    );
    vec![
        heading,
        element("p").class("note").text(text),
        element("div").class("mistakes").children(mistakes.iter().map(tile)),
    ]
}
