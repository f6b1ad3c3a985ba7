//! A tree of HTML and SVG elements, and the only place that writes it down: tags always match, text is always escaped.

use std::fmt::Display;

/// One element with its attributes and what is inside.
#[derive(Debug, Clone)]
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Node>,
}

#[derive(Debug, Clone)]
enum Node {
    Element(Element),
    Text(String),
    /// Text of ours that HTML does not escape: style sheets.
    Verbatim(&'static str),
}

/// Elements that are written `<name/>`. All others have an end tag even when empty, as HTML wants.
const WITHOUT_CONTENT: [&str; 6] = ["meta", "br", "img", "line", "polyline", "rect"];
/// Elements followed by a line break, where it shows nowhere.
const ON_ITS_OWN_LINE: [&str; 27] = [
    "head",
    "meta",
    "title",
    "style",
    "body",
    "main",
    "header",
    "footer",
    "nav",
    "section",
    "div",
    "h1",
    "h2",
    "h3",
    "p",
    "figure",
    "figcaption",
    "table",
    "caption",
    "thead",
    "tbody",
    "tfoot",
    "tr",
    "dl",
    "dd",
    "svg",
    "g",
];

pub(super) fn element(name: &'static str) -> Element {
    Element { name, attributes: Vec::new(), children: Vec::new() }
}

impl Element {
    pub(super) fn with(mut self, attribute: &'static str, value: impl Display) -> Self {
        self.attributes.push((attribute, value.to_string()));
        self
    }

    pub(super) fn class(self, class: &'static str) -> Self {
        self.with("class", class)
    }

    pub(super) fn text(mut self, text: impl Into<String>) -> Self {
        self.children.push(Node::Text(text.into()));
        self
    }

    /// Adds text that is written as it is: never anything from a file or a parameter.
    pub(super) fn verbatim(mut self, text: &'static str) -> Self {
        self.children.push(Node::Verbatim(text));
        self
    }

    pub(super) fn child(mut self, child: Element) -> Self {
        self.children.push(Node::Element(child));
        self
    }

    pub(super) fn children(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children.into_iter().map(Node::Element));
        self
    }

    /// Writes the element and all that is inside. The text is HTML, and XML as well.
    pub(super) fn write(&self, html: &mut String) {
        html.push('<');
        html.push_str(self.name);
        for (name, value) in &self.attributes {
            html.push(' ');
            html.push_str(name);
            html.push_str("=\"");
            escape(value, html);
            html.push('"');
        }
        if WITHOUT_CONTENT.contains(&self.name) {
            html.push_str("/>");
        } else {
            html.push('>');
            for child in &self.children {
                match child {
                    Node::Element(element) => element.write(html),
                    Node::Text(text) => escape(text, html),
                    Node::Verbatim(text) => html.push_str(text),
                }
            }
            html.push_str("</");
            html.push_str(self.name);
            html.push('>');
        }
        if ON_ITS_OWN_LINE.contains(&self.name) {
            html.push('\n');
        }
    }
}

/// Appends text with all that could end it replaced. Characters that XML does not know, and those that would show the
/// text in another order than it is stored, become `�`.
fn escape(text: &str, html: &mut String) {
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\n' | '\t' => html.push(character),
            '\u{fffe}' | '\u{ffff}' => html.push('\u{fffd}'),
            character if character.is_control() || is_bidi_control(character) => html.push('\u{fffd}'),
            character => html.push(character),
        }
    }
}

/// Embeddings, overrides and isolates; right-to-left scripts need none of them.
fn is_bidi_control(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name that the user or a file gave: an id, a label, a stage.
pub(super) fn name(text: &str) -> Element {
    element("span").class("name").text(text)
}

/// An element with text in which words between backticks are set as names.
pub(super) fn prose(tag: &'static str, text: &str) -> Element {
    if !text.matches('`').count().is_multiple_of(2) {
        return element(tag).text(text);
    }
    let part = |whole: Element, (index, part): (usize, &str)| match index % 2 {
        0 => whole.text(part),
        _ => whole.child(element("code").class("name").text(part)),
    };
    text.split('`').enumerate().fold(element(tag), part)
}

/// A figure on the page: a picture and what it shows.
pub(super) fn figure(picture: Element, caption: Element) -> Element {
    element("figure").child(picture).child(caption)
}

pub(super) fn caption(text: impl Into<String>) -> Element {
    element("figcaption").text(text)
}

/// A table cell or column heading whose text is set right, digits below digits.
pub(super) fn number(cell: &'static str, text: impl Into<String>) -> Element {
    element(cell).class("number").text(text)
}

/// A table that scrolls by itself where the page is narrow. Columns that start with `#` hold numbers.
pub(super) fn table(columns: &[String], body: impl IntoIterator<Item = Element>) -> Element {
    let heading = |column: &String| match column.strip_prefix('#') {
        Some(text) => number("th", text).with("scope", "col"),
        None => element("th").with("scope", "col").text(column),
    };
    let head = element("thead").child(element("tr").children(columns.iter().map(heading)));
    element("div").class("scroll").child(element("table").child(head).children(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(element: &Element, expected: &str) {
        let mut html = String::new();
        element.write(&mut html);
        assert_eq!(html, expected);
    }

    #[test]
    fn text_and_attributes_cannot_leave_their_place() {
        check(&element("b").text("</b><script>"), "<b>&lt;/b&gt;&lt;script&gt;</b>");
        check(&element("img").with("alt", "\" onerror='x'"), "<img alt=\"&quot; onerror=&#39;x&#39;\"/>");
        check(&element("b").text("&lt;"), "<b>&amp;lt;</b>");
    }

    #[test]
    fn characters_that_would_break_or_reorder_text_are_replaced() {
        check(&element("b").text("a\0b\u{8}c\u{1b}[31m\u{ffff}\u{85}"), "<b>a�b�c�[31m��</b>");
        check(&element("b").text("a\tb\nc"), "<b>a\tb\nc</b>");
        check(&element("b").text("case_\u{202e}100"), "<b>case_�100</b>");
    }

    #[test]
    fn words_between_backticks_are_names() {
        check(
            &prose("p", "use `a` & `b`"),
            "<p>use <code class=\"name\">a</code> &amp; <code class=\"name\">b</code></p>\n",
        );
        check(&prose("b", "a ` b"), "<b>a ` b</b>");
    }

    #[test]
    fn empty_elements_of_html_keep_their_end_tag() {
        check(&element("td"), "<td></td>");
        check(&element("img").with("src", "a"), "<img src=\"a\"/>");
    }
}
