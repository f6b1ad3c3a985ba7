//! Whose a case is, told from its name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the name of a case tells the patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PatientRule {
    /// Every case is a patient of its own.
    EachCase,
    /// Numbers `2k-1` and `2k` at the end of the name are one patient, e.g. the two sides of one scan.
    IdPairs,
    /// The patient is the text before the last `_`, e.g. `sub-01` of `sub-01_t1`.
    Prefix,
}

impl PatientRule {
    /// The patient of a case, or why its name does not tell.
    pub(crate) fn patient(self, id: &str) -> Result<String, String> {
        match self {
            Self::EachCase => Ok(id.to_owned()),
            Self::IdPairs => pair(id),
            Self::Prefix => match id.rsplit_once('_') {
                Some((prefix, _)) if !prefix.is_empty() => Ok(prefix.to_owned()),
                _ => Err("has no text before a `_`, which `patient: prefix` needs".into()),
            },
        }
    }
}

fn pair(id: &str) -> Result<String, String> {
    let stem = id.trim_end_matches(|last: char| last.is_ascii_digit());
    let digits = &id[stem.len()..];
    let number = digits.parse::<u64>().ok().filter(|number| (1..u64::MAX).contains(number));
    let Some(number) = number else {
        return Err("has no number from 1 at its end, which `patient: id-pairs` needs".into());
    };
    let (first, width) = (number - (number + 1) % 2, digits.len());
    Ok(format!("{stem}{first:0width$}-{:0width$}", first + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: PatientRule, id: &str, expected: Option<&str>) {
        assert_eq!(rule.patient(id).ok().as_deref(), expected);
    }

    #[test]
    fn names_tell_the_patient() {
        check(PatientRule::EachCase, "liver_3", Some("liver_3"));
        check(PatientRule::IdPairs, "hippocampus_003", Some("hippocampus_003-004"));
        check(PatientRule::IdPairs, "hippocampus_004", Some("hippocampus_003-004"));
        check(PatientRule::IdPairs, "hippocampus_005", Some("hippocampus_005-006"));
        check(PatientRule::IdPairs, "hippocampus_099", Some("hippocampus_099-100"));
        check(PatientRule::IdPairs, "hippocampus_100", Some("hippocampus_099-100"));
        check(PatientRule::IdPairs, "9", Some("9-10"));
        check(PatientRule::Prefix, "sub-01_ses-2_t1", Some("sub-01_ses-2"));
    }

    #[test]
    fn a_name_that_does_not_tell_is_refused() {
        check(PatientRule::IdPairs, "liver", None);
        check(PatientRule::IdPairs, "liver_0", None);
        check(PatientRule::IdPairs, "liver_99999999999999999999", None);
        check(PatientRule::IdPairs, "", None);
        check(PatientRule::Prefix, "liver", None);
        check(PatientRule::Prefix, "_t1", None);
    }
}
