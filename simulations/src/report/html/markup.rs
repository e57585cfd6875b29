//! HTML and SVG as they are written, element by element.
//!
//! Invariant: what is opened is closed, and text that came from elsewhere is escaped, attributes too; neither can be
//! forgotten, because nothing else writes to the page.

use std::fmt::{self, Display, Write as _};

/// Names and values of an element's attributes, in the order in which they are written.
pub(crate) type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

/// Elements that have no end.
const VOID: [&str; 3] = ["meta", "br", "hr"];

/// A piece of a page.
#[derive(Default)]
pub(crate) struct Markup {
    out: String,
}

impl Markup {
    /// An element with what `inside` writes in it.
    pub(crate) fn element(&mut self, name: &'static str, attributes: Attributes<'_>, inside: impl FnOnce(&mut Self)) {
        self.open(name, attributes);
        self.out.push('>');
        inside(self);
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
        if is_block(name) {
            self.out.push('\n');
        }
    }

    /// An element with nothing but text in it.
    pub(crate) fn text_in(&mut self, name: &'static str, attributes: Attributes<'_>, text: &str) {
        self.element(name, attributes, |markup| markup.text(text));
    }

    /// An element with nothing in it: a shape, or one that has no end.
    pub(crate) fn empty(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.open(name, attributes);
        self.out.push_str(if VOID.contains(&name) { ">" } else { "/>" });
    }

    /// Text.
    pub(crate) fn text(&mut self, text: &str) {
        // Writing to a string does not fail.
        let _ = Escaped(&mut self.out).write_str(text);
    }

    /// What this program itself brings along, such as its style sheet: a constant, never anything of a report.
    pub(crate) fn constant(&mut self, text: &'static str) {
        self.out.push_str(text);
    }

    /// All of it.
    pub(crate) fn finish(self) -> String {
        self.out
    }

    fn open(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.out.push('<');
        self.out.push_str(name);
        for (attribute, value) in attributes {
            self.out.push(' ');
            self.out.push_str(attribute);
            self.out.push_str("=\"");
            let _ = write!(Escaped(&mut self.out), "{value}");
            self.out.push('"');
        }
    }
}

/// Whether a line may break after an element without a gap being seen.
fn is_block(name: &str) -> bool {
    matches!(
        name,
        "section" | "svg" | "g" | "tr" | "table" | "div" | "p" | "h1" | "h2" | "h3" | "head" | "style" | "details"
    )
}

/// Takes the meaning from characters that have one, and leaves out those that no page may have.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            match char {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(char),
                _ if char.is_control() => self.0.push('\u{fffd}'),
                _ => self.0.push(char),
            }
        }
        Ok(())
    }
}

/// A coordinate, to a tenth of a pixel: finer is not seen, and makes the page larger.
pub(crate) struct Px(pub(crate) f64);

impl Display for Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 10.0).round();
        let tenths = if tenths.is_finite() { tenths } else { 0.0 };
        if tenths % 10.0 == 0.0 { write!(f, "{:.0}", tenths / 10.0 + 0.0) } else { write!(f, "{:.1}", tenths / 10.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_are_escaped() {
        let mut markup = Markup::default();
        markup.element("b", &[("title", &"\"<&'>")], |markup| markup.text("<i>\u{1b}é\n"));
        assert_eq!(markup.finish(), "<b title=\"&quot;&lt;&amp;&#39;&gt;\">&lt;i&gt;\u{fffd}é\n</b>");
    }

    #[test]
    fn shapes_end_themselves_and_void_elements_do_not() {
        let mut markup = Markup::default();
        markup.empty("rect", &[("x", &Px(1.0))]);
        markup.empty("meta", &[]);
        assert_eq!(markup.finish(), "<rect x=\"1\"/><meta>");
    }

    #[test]
    fn coordinates_are_short() {
        let texts = [1.0, 1.26, -0.01, 0.05, f64::NAN, 1e6].map(|value| Px(value).to_string());
        assert_eq!(texts, ["1", "1.3", "0", "0.1", "0", "1000000"]);
    }
}
