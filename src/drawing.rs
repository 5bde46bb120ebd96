//! Pictures as SVG.
//!
//! SVG 1.1 without scripts or outside resources, on a white ground of its own, so that a picture looks the same in a browser, a README
//! and a printed page, by day and by night. Colours are those of Okabe and Ito, "Color Universal Design" (2008), which people
//! with any kind of colour vision tell apart; nothing is said by colour alone.

use std::fmt::Write as _;

/// Texts and axes.
pub const INK: &str = "#1b1b1b";
/// What is said beside.
pub const SOFT: &str = "#5c5c5c";
/// Lines behind what is shown.
pub const GRID: &str = "#e3e3e3";
/// What is shown.
pub const PALETTE: [&str; 7] = ["#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#f0e442"];

/// Mean width of a character in units of its font size, on the wide side of common sans-serif fonts.
pub const CHARACTER_WIDTH: f64 = 0.62;
/// The same for bold figures and marks.
pub const BOLD_WIDTH: f64 = 0.74;

/// SVG elements, in drawing order.
#[derive(Default)]
pub struct Canvas {
    body: String,
}

/// Which end of a text is where it is put.
#[derive(Clone, Copy)]
pub enum Anchor {
    /// Its beginning.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

/// How a text looks.
#[derive(Clone, Copy)]
pub struct Font {
    /// Pixels.
    pub size: f64,
    bold: bool,
    colour: &'static str,
}

impl Font {
    /// In ink.
    pub const fn plain(size: f64) -> Font {
        Font { size, bold: false, colour: INK }
    }

    /// In ink, bold.
    pub const fn bold(size: f64) -> Font {
        Font { size, bold: true, colour: INK }
    }

    /// Paler, for what is said beside.
    pub const fn soft(size: f64) -> Font {
        Font { size, bold: false, colour: SOFT }
    }
}

impl Canvas {
    /// A text, which may hold anything.
    pub fn text(&mut self, x: f64, y: f64, font: Font, anchor: Anchor, content: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if font.bold { "bold" } else { "normal" };
        let (size, colour, content) = (font.size, font.colour, escape(content));
        self.element(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size:.1}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}">{content}</text>"#
        ));
    }

    /// A filled rectangle.
    pub fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str) {
        self.element(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"#
        ));
    }

    /// A line.
    pub fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, colour: &str, width: f64) {
        self.element(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="{width}"/>"#
        ));
    }

    fn element(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{element}").expect("a string takes everything");
    }

    /// Lines of text from `x` on, below `top`, broken between words; gives back their lower end.
    pub fn paragraph(&mut self, x: f64, top: f64, font: Font, content: &str, width: f64) -> f64 {
        let each = if font.bold { BOLD_WIDTH } else { CHARACTER_WIDTH };
        let columns = (width / (font.size * each)) as usize;
        wrapped(content, columns).iter().fold(top, |y, line| {
            let y = y + font.size * 1.45;
            self.text(x, y, font, Anchor::Start, line);
            y
        })
    }

    /// A filled rectangle that lets through what is behind it.
    pub fn shade(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str, opacity: f64) {
        self.element(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}" fill-opacity="{opacity}"/>"#
        ));
    }

    /// A dotted line.
    pub fn dotted(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, colour: &str) {
        self.element(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-dasharray="2 3"/>"#
        ));
    }

    /// The picture; `title` is what those hear who do not see it.
    pub fn finish(self, title: &str, width: f64, height: f64) -> String {
        let (width, height, title) = (width.ceil(), height.ceil(), escape(title));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" role=\"img\">\n\
             <title>{title}</title>\n\
             <rect x=\"0\" y=\"0\" width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// `size`, or what lets `text` fit into a width of so many characters of size 1.
pub fn fitting(text: &str, size: f64, width: f64) -> f64 {
    size.min(width / text.chars().count().max(1) as f64)
}

/// Three to five round numbers from 0 up to `highest`.
pub fn ticks(highest: f64) -> Vec<f64> {
    if highest <= 0.0 {
        return vec![0.0];
    }
    let exponent = (highest / 4.0).log10().floor() as i32;
    // Divided by what is exact, 0.3 is 0.3.
    let scaled = |number: f64| match exponent {
        0.. => number * 10_f64.powi(exponent),
        _ => number / 10_f64.powi(-exponent),
    };
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .find(|step| highest / scaled(*step) <= 4.0)
        .expect("ten magnitudes are more than a fourth");
    (0..=(highest / scaled(step)) as u32).map(|at| scaled(f64::from(at) * step)).collect()
}

/// Lines of at most `columns` characters, broken between words; a word that is longer than a line is broken as well.
///
/// # Panics
/// If `columns` is 0.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let characters: Vec<Vec<char>> = text.split(' ').map(|word| word.chars().collect()).collect();
    let pieces = characters.iter().flat_map(|word| word.chunks(columns).map(String::from_iter));
    for word in pieces {
        let line = lines.last_mut().expect("there is a line from the start");
        if line.is_empty() {
            line.push_str(&word);
        } else if line.chars().count() + 1 + word.chars().count() <= columns {
            line.push(' ');
            line.push_str(&word);
        } else {
            lines.push(word);
        }
    }
    lines
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
        escaped
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A picture has three kinds of tags: opened, closed, both at once. They must nest.
    pub(crate) fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        for piece in svg.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').expect("a tag ends");
            assert!(!text.contains('&') || text.contains(';'), "{text}");
            assert!(tag.matches('"').count().is_multiple_of(2), "{tag}");
            let name = |tag: &str| tag.split(' ').next().unwrap().to_owned();
            match tag.strip_prefix('/') {
                Some(closed) => assert_eq!(open.pop().as_deref(), Some(closed)),
                None if tag.ends_with('/') => assert!(!open.is_empty(), "{tag} outside the picture"),
                None => open.push(name(tag)),
            }
        }
        assert!(open.is_empty(), "{open:?} left open");
    }

    fn attribute<'a>(tag: &'a str, name: &str) -> &'a str {
        let start = tag.find(&format!(" {name}=\"")).expect("every text has it") + name.len() + 3;
        tag[start..].split('"').next().unwrap()
    }

    /// Left, top, right, bottom of every text, and the text.
    fn texts(svg: &str) -> Vec<([f64; 4], String)> {
        let text = |piece: &str| {
            let (tag, text) = piece.split_once('>').unwrap();
            let number = |name: &str| attribute(tag, name).parse::<f64>().unwrap();
            let (x, y, size) = (number("x"), number("y"), number("font-size"));
            let each = if attribute(tag, "font-weight") == "bold" { 0.7 } else { 0.6 };
            let text = text.split('<').next().unwrap();
            let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
            let width = text.chars().count() as f64 * size * each;
            let left = match attribute(tag, "text-anchor") {
                "start" => x,
                "middle" => x - width / 2.0,
                _ => x - width,
            };
            ([left, y - 0.75 * size, left + width, y + 0.2 * size], text)
        };
        svg.split("<text").skip(1).map(text).collect()
    }

    pub(crate) fn assert_readable(svg: &str) {
        assert_well_formed(svg);
        let size: Vec<f64> = ["width", "height"]
            .iter()
            .map(|name| attribute(svg.split('>').next().unwrap(), name).parse().unwrap())
            .collect();
        let texts = texts(svg);
        assert!(texts.len() > 10);
        for (at, (box_, text)) in texts.iter().enumerate() {
            assert!(box_[0] >= 0.0 && box_[1] >= 0.0 && box_[2] <= size[0] && box_[3] <= size[1], "{text} is cut off");
            for (other, other_text) in &texts[..at] {
                let apart = box_[0] >= other[2] || other[0] >= box_[2] || box_[1] >= other[3] || other[1] >= box_[3];
                assert!(apart, "`{text}` over `{other_text}`: {box_:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_line_is_broken_between_words_and_within_a_word_that_is_longer() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a longestword b", 5), ["a", "longe", "stwor", "d b"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(11.0), [0.0, 5.0, 10.0]);
        assert_eq!(ticks(2_310_000.0), [0.0, 1e6, 2e6]);
        assert_eq!(ticks(0.303), [0.0, 0.1, 0.2, 0.3]);
        assert_eq!(ticks(4.0), [0.0, 1.0, 2.0, 3.0, 4.0]);
        for highest in 1..2000 {
            assert!((2..=5).contains(&ticks(f64::from(highest)).len()), "{highest}");
        }
    }
}
