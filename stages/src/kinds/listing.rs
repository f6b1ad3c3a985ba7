//! Lists of findings inside one message.

const SHOWN: usize = 20;

/// A number of things: `1 channel`, `2 channels`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Says how many `[thing, things]` there are and shows the first twenty, one a line.
pub(crate) fn listing([thing, things]: [&str; 2], items: &[String]) -> String {
    let mut text = format!("{} {}:", items.len(), if items.len() == 1 { thing } else { things });
    for item in items.iter().take(SHOWN) {
        text.push_str("\n  ");
        text.push_str(item);
    }
    match items.len().saturating_sub(SHOWN) {
        0 => text,
        more => text + &format!("\n  and {more} more"),
    }
}
