//! Lists of findings inside one message.

const SHOWN: usize = 20;

/// Says how many `things` there are and shows the first twenty, one a line.
pub(crate) fn listing(things: &str, items: &[String]) -> String {
    let mut text = format!("{} {things}:", items.len());
    for item in items.iter().take(SHOWN) {
        text.push_str("\n  ");
        text.push_str(item);
    }
    match items.len().saturating_sub(SHOWN) {
        0 => text,
        more => text + &format!("\n  and {more} more"),
    }
}
