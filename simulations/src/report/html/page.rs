//! The shell of every page, and what its sections are made of.
//!
//! Invariant: a page is whole by itself. It has no script, asks nothing of any network (its policy forbids it too), and what
//! a picture shows is also in a table or in words.

use super::markup::Markup;

/// Nothing may be loaded; the style sheet is in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
const STYLE: &str = include_str!("style.css");
/// Identifier of the pattern of what was thrown away.
pub(crate) const HATCH: &str = "url(#hatch)";

/// A whole page.
pub(crate) fn whole(title: &str, body: impl FnOnce(&mut Markup)) -> String {
    let mut page = Markup::default();
    page.constant("<!DOCTYPE html>\n");
    page.element("html", &[("lang", &"en")], |page| {
        page.element("head", &[], |page| {
            page.empty("meta", &[("charset", &"utf-8")]);
            page.empty("meta", &[("http-equiv", &"Content-Security-Policy"), ("content", &POLICY)]);
            page.empty("meta", &[("name", &"viewport"), ("content", &"width=device-width, initial-scale=1")]);
            page.text_in("title", &[], title);
            page.element("style", &[], |page| page.constant(STYLE));
        });
        page.element("body", &[], |page| {
            patterns(page);
            page.element("main", &[], body);
        });
    });
    let mut text = page.finish();
    text.push('\n');
    text
}

/// What shapes are filled with and that no style sheet can say.
fn patterns(page: &mut Markup) {
    page.element("svg", &[("class", &"defs"), ("aria-hidden", &"true")], |page| {
        page.element("defs", &[], |page| {
            let turned = "rotate(45)";
            let attributes: super::markup::Attributes<'_> = &[
                ("id", &"hatch"),
                ("width", &6),
                ("height", &6),
                ("patternUnits", &"userSpaceOnUse"),
                ("patternTransform", &turned),
            ];
            page.element("pattern", attributes, |page| {
                page.empty("rect", &[("class", &"hatch-back"), ("width", &6), ("height", &6)]);
                page.empty("line", &[("class", &"hatch"), ("x1", &0), ("y1", &0), ("x2", &0), ("y2", &6)]);
            });
        });
    });
}

/// A section with a heading; `id` is unique in the page.
pub(crate) fn section(page: &mut Markup, id: &str, heading: &str, inside: impl FnOnce(&mut Markup)) {
    let labelled = format!("{id}-heading");
    page.element("section", &[("id", &id), ("aria-labelledby", &labelled)], |page| {
        page.text_in("h2", &[("id", &labelled)], heading);
        inside(page);
    });
}

/// What a section says before it shows.
pub(crate) fn lead(page: &mut Markup, text: &str) {
    page.text_in("p", &[("class", &"lead")], text);
}

/// What stands for what in a picture: a class of shape and what it means.
pub(crate) fn legend(page: &mut Markup, entries: &[(Sign<'_>, &str)]) {
    page.element("ul", &[("class", &"legend")], |page| {
        for (sign, meaning) in entries {
            page.element("li", &[], |page| {
                page.element("svg", &[("viewBox", &"0 0 22 12"), ("aria-hidden", &"true")], |page| sign.draw(page));
                page.text(meaning);
            });
        }
    });
}

/// A sign of a legend.
pub(crate) enum Sign<'a> {
    /// A line of this class.
    Line(&'a str),
    /// An area of this class.
    Area(&'a str),
    /// An area with this fill.
    Fill(&'a str),
}

impl Sign<'_> {
    fn draw(&self, page: &mut Markup) {
        match self {
            Self::Line(class) => {
                page.empty("line", &[("class", class), ("x1", &0), ("x2", &22), ("y1", &6), ("y2", &6)]);
            }
            Self::Area(class) => {
                let (x, y, width, height) = (2, 1, 18, 10);
                page.empty("rect", &[("class", class), ("x", &x), ("y", &y), ("width", &width), ("height", &height)]);
            }
            Self::Fill(fill) => page.empty("rect", &[("fill", fill), ("width", &22), ("height", &12)]),
        }
    }
}

/// A cell of a table.
pub(crate) enum Cell {
    /// What the row is about.
    Head(String),
    Text(String),
    Number(String),
    /// Text of a class of its own.
    Marked(&'static str, String),
}

/// A table; columns whose name begins with `#` are numbers.
pub(crate) fn table(page: &mut Markup, caption: &str, columns: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) {
    page.element("div", &[("class", &"wide")], |page| {
        page.element("table", &[], |page| {
            if !caption.is_empty() {
                page.text_in("caption", &[], caption);
            }
            head(page, columns);
            page.element("tbody", &[], |page| {
                for row in rows {
                    page.element("tr", &[], |page| row.iter().for_each(|cell| cell.write(page)));
                }
            });
        });
    });
}

/// The head of a table; columns whose name begins with `#` are numbers.
pub(crate) fn head(page: &mut Markup, columns: &[&str]) {
    page.element("thead", &[], |page| {
        page.element("tr", &[], |page| {
            for column in columns {
                match column.strip_prefix('#') {
                    Some(name) => page.text_in("th", &[("scope", &"col"), ("class", &"n")], name),
                    None => page.text_in("th", &[("scope", &"col")], column),
                }
            }
        });
    });
}

impl Cell {
    /// Writes it.
    pub(crate) fn write(&self, page: &mut Markup) {
        match self {
            Self::Head(text) => page.text_in("th", &[("scope", &"row")], text),
            Self::Text(text) => page.text_in("td", &[], text),
            Self::Number(text) => page.text_in("td", &[("class", &"n")], text),
            Self::Marked(class, text) => page.text_in("td", &[("class", class)], text),
        }
    }
}

/// What is shown only to who asks.
pub(crate) fn details(page: &mut Markup, summary: &str, inside: impl FnOnce(&mut Markup)) {
    page.element("details", &[], |page| {
        page.text_in("summary", &[], summary);
        inside(page);
    });
}
