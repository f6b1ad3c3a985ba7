//! Numbers as people read them. Undefined values are called so; infinite ones are ∞.

/// A number with this many decimals.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    if value.is_nan() {
        return "undefined".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞".into() } else { "−∞".into() };
    }
    signed(&format!("{value:.decimals$}"))
}

pub(super) fn optional(value: Option<f64>, decimals: usize) -> String {
    fixed(value.unwrap_or(f64::NAN), decimals)
}

/// A number with four significant digits, and commas between thousands.
pub(super) fn brief(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return fixed(value, 0);
    }
    let rounded: f64 = format!("{value:.3e}").parse().expect("a formatted number is a number");
    let size = rounded.abs();
    if !(1e-4..1e9).contains(&size) {
        return signed(&format!("{rounded:e}"));
    }
    let text = rounded.to_string();
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), ""), |(whole, _)| (whole, &text[whole.len()..]));
    signed(&format!("{}{rest}", grouped(whole)))
}

/// `1234567` as `1,234,567`.
fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let mut text = sign.to_owned();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Replaces the hyphen by a minus, and drops it from zero.
fn signed(text: &str) -> String {
    match text.strip_prefix('-') {
        Some(zero) if zero.bytes().all(|byte| matches!(byte, b'0' | b'.')) => zero.to_owned(),
        Some(size) => format!("−{size}"),
        None => text.to_owned(),
    }
}

/// Decimals that suit values of this size: three significant digits or so.
pub(super) fn decimals(values: impl Iterator<Item = f64>) -> usize {
    let largest =
        values.filter(|value| value.is_finite()).fold(0.0, |largest: f64, value| largest.max(value.abs()));
    match largest {
        0.0..10.0 => 3,
        10.0..100.0 => 2,
        100.0..1000.0 => 1,
        _ => 0,
    }
}

/// `1 case`, `2 cases`.
pub(super) fn count(number: usize, singular: &str, plural: &str) -> String {
    format!("{} {}", grouped(&number.to_string()), if number == 1 { singular } else { plural })
}

/// A share of one as a percentage.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", brief(share * 100.0))
}

/// A metric as people write it.
pub(super) fn metric_name(metric: &str) -> String {
    match metric {
        "dice" => "Dice".into(),
        "iou" => "IoU".into(),
        "precision" => "Precision".into(),
        "recall" => "Recall".into(),
        "nsd" => "NSD".into(),
        "auc_roc" => "AUC (ROC)".into(),
        "auc_pr" => "Average precision".into(),
        "accuracy" => "Accuracy".into(),
        "balanced_accuracy" => "Balanced accuracy".into(),
        "specificity" => "Specificity".into(),
        "f1" => "F1".into(),
        "mcc" => "MCC".into(),
        "brier" => "Brier score".into(),
        "ece" => "ECE".into(),
        "hd_mm" => "HD (mm)".into(),
        "hd95_mm" => "HD95 (mm)".into(),
        "assd_mm" => "ASSD (mm)".into(),
        "volume_error_ml" => "Volume error (ml)".into(),
        other => match other.strip_suffix("_mm") {
            Some(length) => format!("{} (mm)", length.replace('_', " ")),
            None => other.replace('_', " "),
        },
    }
}

/// The first `limit` characters, with `…` where more follow.
pub(super) fn short(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undefined_is_a_word_and_never_a_number() {
        assert_eq!(fixed(f64::NAN, 3), "undefined");
        assert_eq!(optional(None, 3), "undefined");
        assert_eq!((fixed(f64::INFINITY, 3), fixed(f64::NEG_INFINITY, 0)), ("∞".into(), "−∞".into()));
        assert_eq!(brief(f64::NAN), "undefined");
    }

    #[test]
    fn numbers_have_a_minus_and_zero_has_none() {
        assert_eq!(fixed(-0.25, 3), "−0.250");
        assert_eq!(fixed(-0.0001, 3), "0.000");
        assert_eq!(fixed(0.9996, 3), "1.000");
    }

    #[test]
    fn brief_keeps_four_significant_digits() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (0.734_42, "0.7344"),
            (1_704_295.0, "1,704,000"),
            (-1234.56, "−1,235"),
            (999.96, "1,000"),
            (1.5e12, "1.5e12"),
            (-2e-7, "−2e-7"),
        ];
        for (value, expected) in cases {
            assert_eq!(brief(value), expected, "{value}");
        }
    }

    #[test]
    fn decimals_follow_the_largest_value() {
        assert_eq!(decimals([0.2, 1.0].into_iter()), 3);
        assert_eq!(decimals([0.2, 12.0, f64::INFINITY].into_iter()), 2);
        assert_eq!(decimals([-450.0, f64::NAN].into_iter()), 1);
        assert_eq!(decimals([4500.0].into_iter()), 0);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(short("größe", 5), "größe");
        assert_eq!(short("größer", 5), "größ…");
    }
}
