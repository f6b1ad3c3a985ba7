//! The words of the choices that `pipe-metrics` defines, for schemas and the command line: that crate knows neither.

use pipe_metrics::segmentation::Metric;
use schemars::{Schema, SchemaGenerator, json_schema};

pub const METRICS: [&str; Metric::ALL.len()] = {
    let mut names = [""; Metric::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Metric::ALL[at].name();
        at += 1;
    }
    names
};
pub const DEFINITIONS: [&str; 3] = ["deepmind", "monai", "medpy"];
pub const EMPTY: [&str; 4] = ["worst", "infinite", "undefined", "library"];
pub const ABSENT: [&str; 2] = ["undefined", "perfect"];
pub const CONNECTIVITY: [&str; 2] = ["6", "26"];
pub const BLENDS: [&str; 2] = ["gaussian", "constant"];
pub const TILINGS: [&str; 2] = ["nnunet", "monai"];

pub(super) fn metrics(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "enum": METRICS } })
}

pub(super) fn definition(_: &mut SchemaGenerator) -> Schema {
    one_of(&DEFINITIONS)
}

pub(super) fn empty(_: &mut SchemaGenerator) -> Schema {
    one_of(&EMPTY)
}

pub(super) fn absent(_: &mut SchemaGenerator) -> Schema {
    one_of(&ABSENT)
}

pub(super) fn connectivity(_: &mut SchemaGenerator) -> Schema {
    one_of(&CONNECTIVITY)
}

pub(super) fn blend(_: &mut SchemaGenerator) -> Schema {
    one_of(&BLENDS)
}

pub(super) fn tiling(_: &mut SchemaGenerator) -> Schema {
    one_of(&TILINGS)
}

fn one_of(words: &[&str]) -> Schema {
    json_schema!({ "type": "string", "enum": words })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_metrics::lesions::Connectivity;
    use pipe_metrics::segmentation::{Absent, OneEmpty};
    use pipe_metrics::surface::Definition;
    use serde::de::DeserializeOwned;
    use serde_json::json;

    #[track_caller]
    fn check<T: DeserializeOwned>(words: &[&str]) {
        for word in words {
            assert!(serde_json::from_value::<T>(json!(word)).is_ok(), "`{word}` is no choice");
        }
    }

    #[test]
    fn every_word_is_a_choice() {
        check::<Metric>(&METRICS);
        check::<Definition>(&DEFINITIONS);
        check::<OneEmpty>(&EMPTY);
        check::<Absent>(&ABSENT);
        check::<Connectivity>(&CONNECTIVITY);
        check::<pipe_onnx::Blend>(&BLENDS);
        check::<pipe_onnx::Tiling>(&TILINGS);
    }
}
