//! Sizes and times as people write them: `4G`, `90s`, `2h`.

use std::time::Duration;

/// A size such as `512M`, `4G` or `4GiB`, in powers of 1024.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << unit)
}

const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// A time such as `90s`, `15m`, `2h` or `1d`. Without a unit it could mean anything.
pub fn time(text: &str) -> Option<Duration> {
    let (unit, seconds) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// A time as [`time`] reads it, in the largest unit that divides it.
pub fn time_text(time: Duration) -> String {
    let seconds = time.as_secs();
    let whole = |(_, unit): &(&str, u64)| seconds >= *unit && seconds.is_multiple_of(*unit);
    let (unit, length) = UNITS.into_iter().find(whole).unwrap_or(("s", 1));
    format!("{}{unit}", seconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, seconds: Option<u64>) {
        assert_eq!(time(text), seconds.map(Duration::from_secs), "{text}");
    }

    #[test]
    fn a_time_is_a_whole_number_and_a_unit() {
        check("90s", Some(90));
        check("15m", Some(900));
        check("2h", Some(7_200));
        check("1d", Some(86_400));
        check("0s", Some(0));
        for wrong in
            ["", "s", "2", "2 h", "1.5h", "-1s", "2hours", "99999999999999999999s", "999999999999999999d"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn a_time_is_told_as_it_may_be_written() {
        for text in ["0s", "90s", "2m", "2h", "25h", "3d"] {
            assert_eq!(time_text(time(text).unwrap()), text);
        }
        assert_eq!(time_text(Duration::from_hours(2)), "2h");
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!([bytes("7"), bytes("4G"), bytes("4GiB")], [Some(7), Some(4 << 30), Some(4 << 30)]);
        assert_eq!([bytes(""), bytes("G"), bytes("4X"), bytes("99999999T")], [None; 4]);
    }
}
