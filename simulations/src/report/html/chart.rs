//! The frame that plots are drawn in: axes, grid, curves, and columns that tell their values when pointed at.
//!
//! Invariant: nothing is drawn outside the frame, and no path has more points than the frame has pixels.

use std::fmt::Write as _;

use super::{
    markup::{Markup, Px},
    scale::{Axis, Scale},
};

/// A plot's place in its picture.
pub(crate) struct Frame {
    pub(crate) left: f64,
    pub(crate) right: f64,
    pub(crate) top: f64,
    pub(crate) bottom: f64,
    pub(crate) x: Scale,
    pub(crate) y: Scale,
}

/// How far a label is below its axis.
const LABEL_BELOW: f64 = 16.0;

impl Frame {
    /// A frame between these edges, with axes up to these values.
    pub(crate) fn new(edges: [f64; 4], x_max: f64, y_max: f64) -> Self {
        let [left, right, top, bottom] = edges;
        Self { left, right, top, bottom, x: Scale::new(x_max, left, right), y: Scale::new(y_max, bottom, top) }
    }

    /// Grid, ticks and titles of both axes.
    pub(crate) fn axes(&self, page: &mut Markup, x: &Axis, y: &Axis) {
        for tick in &y.ticks {
            let at = self.y.at(tick.value);
            self.horizontal(page, "grid", tick.value);
            let place = (Px(self.left - 6.0), Px(at + 4.0));
            page.text_in("text", &[("class", &"end"), ("x", &place.0), ("y", &place.1)], &tick.label);
        }
        for tick in &x.ticks {
            let at = self.x.at(tick.value);
            let (top, bottom) = (Px(self.bottom), Px(self.bottom + 4.0));
            page.empty("line", &[("class", &"axis"), ("x1", &Px(at)), ("x2", &Px(at)), ("y1", &top), ("y2", &bottom)]);
            let below = Px(self.bottom + LABEL_BELOW);
            page.text_in("text", &[("class", &"middle"), ("x", &Px(at)), ("y", &below)], &tick.label);
        }
        self.horizontal(page, "axis", 0.0);
        if !x.title.is_empty() {
            let below = Px(self.bottom + 2.0 * LABEL_BELOW);
            page.text_in("text", &[("class", &"end soft"), ("x", &Px(self.right)), ("y", &below)], &x.title);
        }
        if !y.title.is_empty() {
            page.text_in("text", &[("class", &"soft"), ("x", &Px(self.left)), ("y", &Px(self.top - 10.0))], &y.title);
        }
    }

    /// A line across the plot at a value.
    pub(crate) fn horizontal(&self, page: &mut Markup, class: &str, value: f64) {
        let y = Px(self.y.at(value));
        let (from, to) = (Px(self.left), Px(self.right));
        page.empty("line", &[("class", &class), ("x1", &from), ("x2", &to), ("y1", &y), ("y2", &y)]);
    }

    /// A line down the plot at a time.
    pub(crate) fn vertical(&self, page: &mut Markup, class: &str, value: f64) {
        let x = Px(self.x.at(value));
        let (from, to) = (Px(self.top), Px(self.bottom));
        page.empty("line", &[("class", &class), ("x1", &x), ("x2", &x), ("y1", &from), ("y2", &to)]);
    }

    /// A staircase: a value holds until the next one.
    pub(crate) fn stairs(&self, page: &mut Markup, class: &str, points: &[(f64, f64)]) {
        let mut path = String::new();
        for (x, y) in self.thinned(points) {
            // Writing to a string does not fail.
            let _ = if path.is_empty() {
                write!(path, "M{} {}", Px(x), Px(y))
            } else {
                write!(path, "H{}V{}", Px(x), Px(y))
            };
        }
        page.empty("path", &[("class", &class), ("d", &path)]);
    }

    /// A curve of straight lines.
    pub(crate) fn line(&self, page: &mut Markup, class: &str, points: &[(f64, f64)]) {
        page.empty("path", &[("class", &class), ("d", &self.path(points))]);
    }

    /// What is between two curves of straight lines.
    pub(crate) fn band(&self, page: &mut Markup, class: &str, lower: &[(f64, f64)], upper: &[(f64, f64)]) {
        if lower.is_empty() {
            return;
        }
        let back: Vec<(f64, f64)> = upper.iter().rev().copied().collect();
        let edge = self.path(lower) + &self.path(&back).replacen('M', "L", 1) + "Z";
        page.empty("path", &[("class", &class), ("d", &edge)]);
    }

    /// Columns that say what is there when they are pointed at.
    pub(crate) fn columns(&self, page: &mut Markup, count: u32, say: impl Fn(f64) -> String) {
        let width = (self.right - self.left) / f64::from(count.max(1));
        page.element("g", &[("class", &"columns")], |page| {
            for column in 0..count {
                let from = self.left + f64::from(column) * width;
                let at = self.x.max() * (f64::from(column) + 0.5) / f64::from(count);
                let shape = (Px(from), Px(self.top), Px(width), Px(self.bottom - self.top));
                let place: [(&'static str, &dyn std::fmt::Display); 4] =
                    [("x", &shape.0), ("y", &shape.1), ("width", &shape.2), ("height", &shape.3)];
                page.element("rect", &place, |page| page.text_in("title", &[], &say(at)));
            }
        });
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (x, y) in self.thinned(points) {
            let _ = write!(path, "{}{} {}", if path.is_empty() { 'M' } else { 'L' }, Px(x), Px(y));
        }
        path
    }

    /// Places of points, the last of those that are in one pixel.
    fn thinned(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let mut places: Vec<(f64, f64)> = Vec::new();
        let mut first = true;
        for (time, value) in points {
            let place = (self.x.at(*time), self.y.at(*value));
            match places.last_mut() {
                // Where it begins is kept.
                Some(last) if !first && (last.0 - place.0).abs() < 0.5 => last.1 = place.1,
                _ => {
                    first = places.is_empty();
                    places.push(place);
                }
            }
        }
        places
    }
}

/// A picture with what it is called and what it shows, for who cannot see it. `id` is unique in the page.
pub(crate) fn picture(
    page: &mut Markup,
    id: &str,
    size: (f64, f64),
    title: &str,
    shows: &str,
    inside: impl FnOnce(&mut Markup),
) {
    let view = format!("0 0 {} {}", Px(size.0), Px(size.1));
    let (title_id, shows_id) = (format!("{id}-title"), format!("{id}-shows"));
    let labelled = format!("{title_id} {shows_id}");
    let attributes: [(&'static str, &dyn std::fmt::Display); 4] =
        [("viewBox", &view), ("role", &"img"), ("aria-labelledby", &labelled), ("id", &id)];
    page.element("svg", &attributes, |page| {
        page.text_in("title", &[("id", &title_id)], title);
        page.text_in("desc", &[("id", &shows_id)], shows);
        inside(page);
    });
}

/// As much of a text as fits in so many pixels of a picture's usual letters.
pub(crate) fn fitting(text: &str, pixels: f64) -> String {
    let most = (pixels / LETTER).floor().max(1.0) as usize;
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Width of a letter of a picture's usual text: 12 px high, and what most fonts need on the average and a little more.
pub(crate) const LETTER: f64 = 6.8;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame::new([10.0, 110.0, 10.0, 60.0], 100.0, 10.0)
    }

    #[test]
    fn paths_have_no_more_points_than_pixels() {
        let points: Vec<(f64, f64)> =
            (0..100_000).map(|index| (f64::from(index) / 1000.0, f64::from(index) / 10_000.0)).collect();
        assert!(frame().thinned(&points).len() <= 202);
        let last = frame().thinned(&points).pop().unwrap();
        assert!((last.1 - 10.0).abs() < 0.1, "{last:?}");
    }

    #[test]
    fn stairs_go_sideways_and_then_up() {
        let mut page = Markup::default();
        frame().stairs(&mut page, "curve", &[(0.0, 0.0), (50.0, 5.0), (100.0, 10.0)]);
        assert_eq!(page.finish(), "<path class=\"curve\" d=\"M10 60H60V35H110V10\"/>");
    }

    #[test]
    fn no_points_are_an_empty_path() {
        let mut page = Markup::default();
        frame().stairs(&mut page, "curve", &[]);
        frame().band(&mut page, "band", &[], &[]);
        assert_eq!(page.finish(), "<path class=\"curve\" d=\"\"/>");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(fitting("short", 100.0), "short");
        assert_eq!(fitting("a text that is too long", 7.0 * LETTER), "a text…");
    }
}
