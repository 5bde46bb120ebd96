//! The report as one picture: small multiples, one panel a workload, one bar a subject.
//!
//! Written by hand as SVG 1.1 without scripts or outside resources, on a white ground of its own, so
//! that it looks the same in a browser, a README and a printed page, by day and by night. Each panel
//! has its own linear scale from zero: levels are compared within a workload, not across. Colours
//! are those of Okabe and Ito, "Color Universal Design" (2008), which people with any kind of colour
//! vision tell apart; every bar is named and carries its figure besides.

use std::fmt::Write as _;

use super::report::{Report, Spread, State, SubjectFacts};
use super::table::{compared, count, disturbances, lost, mb, method, rows, says_something, shown_in_mb, wrapped};
use super::{Disturbance, Mix, Shape};

/// Pixels.
const MARGIN: f64 = 32.0;
const WIDTH_MIN: f64 = 1280.0;
const PANEL_GAP: f64 = 26.0;
const SLOT_WIDTH: f64 = 40.0;
const AXIS_WIDTH: f64 = 36.0;
const PLOT_HEIGHT: f64 = 150.0;
/// Above the plot: title, subtitle.
const PANEL_HEAD: f64 = 46.0;
/// Room between the highest mark and the top of the plot, for a figure.
const FIGURE_ROOM: f64 = 18.0;
const LEGEND_WIDTH: f64 = 200.0;
const LEGEND_HEIGHT: f64 = 52.0;

const INK: &str = "#1b1b1b";
const SOFT: &str = "#5c5c5c";
const GRID: &str = "#e3e3e3";
const RAW: &str = "#8a8a8a";
const PALETTE: [&str; 7] = ["#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#f0e442"];

/// Mean width of a character in units of its font size, on the wide side of common sans-serif fonts.
const CHARACTER_WIDTH: f64 = 0.62;
/// The same for bold figures and marks.
const BOLD_WIDTH: f64 = 0.74;

/// The picture of `report`.
pub fn draw(report: &Report) -> String {
    let panels = panels(report);
    let bars_most = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(1).max(1);
    let panel_width_min = AXIS_WIDTH + SLOT_WIDTH * bars_most as f64;
    let width = WIDTH_MIN.max(2.0 * MARGIN + panel_width_min);
    let inner = width - 2.0 * MARGIN;
    let columns = (((inner + PANEL_GAP) / (panel_width_min + PANEL_GAP)) as usize).clamp(1, 4);
    let panel_width = (inner - PANEL_GAP * (columns - 1) as f64) / columns as f64;
    let name_lines = report.subjects.iter().map(|facts| facts.name.split(' ').count()).max().unwrap_or(1);
    let panel_height = PANEL_HEAD + PLOT_HEIGHT + 8.0 + 12.0 * name_lines as f64 + 18.0;

    let mut picture = Picture::default();
    let mut y = picture.head(report, inner);
    y = picture.legend(report, y, inner);
    for (at, panel) in panels.iter().enumerate() {
        let x = MARGIN + (at % columns) as f64 * (panel_width + PANEL_GAP);
        picture.panel(panel, x, y + (at / columns) as f64 * panel_height, panel_width);
    }
    y += panels.len().div_ceil(columns) as f64 * panel_height;
    y = picture.foot(report, y, inner);
    picture.finish(width, y + MARGIN / 2.0)
}

/// One group of bars.
struct Panel {
    title: String,
    subtitle: String,
    /// How a value is written.
    figure: fn(f64) -> String,
    bars: Vec<Bar>,
}

struct Bar {
    name: String,
    colour: String,
    /// `None`: the data was lost with the member.
    value: Option<Value>,
}

struct Value {
    rate: Spread,
    /// What theory allows.
    ceiling: Option<f64>,
    /// Behind the figure: disturbed, errors.
    marks: String,
}

fn panels(report: &Report) -> Vec<Panel> {
    let mut panels: Vec<Panel> = rows(report)
        .into_iter()
        .map(|(state, workload)| {
            let in_mb = shown_in_mb(&workload);
            let (title, subtitle) = workload.title();
            let bars = bars(report, state, |facts| {
                let cell = report.cell(&facts.name, state, workload)?;
                let per_request = if in_mb { workload.block.bytes() as f64 / 1e6 } else { 1.0 };
                let mut marks = mark(&cell.disturbed);
                if cell.errors > 0 {
                    marks.push('!');
                }
                let ceiling = cell.theory_iops.filter(|_| says_something(facts, cell)).map(|iops| iops * per_request);
                Some(Value { rate: compared(cell), ceiling, marks })
            });
            let (unit, figure) = if in_mb { unit_of(&bars) } else { ("IOPS", count as fn(f64) -> String) };
            let title = if state == State::Degraded { format!("{title}, degraded") } else { title };
            Panel { title, subtitle: format!("{subtitle}, {unit}"), figure, bars }
        })
        .collect();
    if !report.rebuilds.is_empty() {
        let bars = bars(report, State::Degraded, |facts| {
            let rebuild = report.rebuild(&facts.name)?;
            Some(Value {
                rate: rebuild.mb_per_second,
                ceiling: rebuild.theory_mb_per_second,
                marks: mark(&rebuild.disturbed),
            })
        });
        let (unit, figure) = unit_of(&bars);
        let subtitle = format!("written to the new member, {unit}");
        panels.push(Panel { title: "Recovery".to_owned(), subtitle, figure, bars });
    }
    panels.extend(member_writes(report));
    panels
}

/// Megabytes, or gigabytes where five digits would crowd the bars.
fn unit_of(bars: &[Bar]) -> (&'static str, fn(f64) -> String) {
    let wide = |bar: &Bar| bar.value.as_ref().is_some_and(|value| value.rate.median >= 9_999.5);
    if bars.iter().any(wide) { ("GB/s", gb) } else { ("MB/s", mb) }
}

/// The cause beside the effects: what one small write makes of itself.
fn member_writes(report: &Report) -> Option<Panel> {
    let workload = *report.workloads.iter().filter(|workload| workload.mix == Mix::Write).min_by_key(|w| w.block.0)?;
    let bars = bars(report, State::Optimal, |facts| {
        let cell = report.cell(&facts.name, State::Optimal, workload)?;
        let writes = cell.member_bytes_per_byte_written?;
        let rate = Spread { median: writes, min: writes, max: writes };
        Some(Value { rate, ceiling: cell.theory_cost.map(|cost| cost.writes), marks: String::new() })
    });
    let subtitle = format!("bytes a byte, {workload}");
    let title = "Written to members".to_owned();
    (!bars.is_empty()).then_some(Panel { title, subtitle, figure: |writes| format!("{writes:.2}"), bars })
}

fn mark(disturbed: &[Disturbance]) -> String {
    if disturbed.is_empty() { String::new() } else { "~".to_owned() }
}

/// Bars of the subjects that have a value, or lost it.
fn bars(report: &Report, state: State, value: impl Fn(&SubjectFacts) -> Option<Value>) -> Vec<Bar> {
    let bar = |(at, facts): (usize, &SubjectFacts)| {
        let value = value(facts);
        (value.is_some() || lost(facts, state)).then(|| Bar {
            name: facts.name.clone(),
            colour: colour(report, at),
            value,
        })
    };
    report.subjects.iter().enumerate().filter_map(bar).collect()
}

/// The raw file is grey; beyond the palette, its colours return paler.
fn colour(report: &Report, subject: usize) -> String {
    if report.subjects[subject].shape == Shape::Single {
        return RAW.to_owned();
    }
    let at = report.subjects[..subject].iter().filter(|facts| facts.shape != Shape::Single).count();
    let full = PALETTE[at % PALETTE.len()];
    let paler = 0.6_f64.powi((at / PALETTE.len()) as i32);
    let channel = |from: usize| {
        let value = u8::from_str_radix(&full[from..from + 2], 16).expect("the palette is hexadecimal");
        255.0 - (255.0 - f64::from(value)) * paler
    };
    format!("#{:02x}{:02x}{:02x}", channel(1) as u8, channel(3) as u8, channel(5) as u8)
}

/// SVG elements, in drawing order.
#[derive(Default)]
struct Picture {
    body: String,
}

#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Clone, Copy)]
struct Font {
    size: f64,
    bold: bool,
    colour: &'static str,
}

impl Font {
    const fn plain(size: f64) -> Font {
        Font { size, bold: false, colour: INK }
    }

    const fn bold(size: f64) -> Font {
        Font { size, bold: true, colour: INK }
    }

    const fn soft(size: f64) -> Font {
        Font { size, bold: false, colour: SOFT }
    }
}

impl Picture {
    fn head(&mut self, report: &Report, inner: f64) -> f64 {
        let mut y = MARGIN + 14.0;
        self.text(MARGIN, y, Font::bold(22.0), Anchor::Start, "RAID levels compared on this computer");
        y += 8.0;
        for line in [report.measured.to_string(), report.machine.to_string(), method(report)] {
            y = self.paragraph(y, Font::soft(12.0), &line, inner);
        }
        y + 16.0
    }

    fn legend(&mut self, report: &Report, top: f64, inner: f64) -> f64 {
        let columns = ((inner / LEGEND_WIDTH) as usize).clamp(1, report.subjects.len().max(1));
        let column_width = inner / columns as f64;
        for (at, facts) in report.subjects.iter().enumerate() {
            let x = MARGIN + (at % columns) as f64 * column_width;
            let y = top + (at / columns) as f64 * LEGEND_HEIGHT;
            self.rectangle(x, y, 14.0, 14.0, &colour(report, at));
            let size = fitting(&facts.name, 12.5, (column_width - 30.0) / BOLD_WIDTH);
            self.text(x + 21.0, y + 11.5, Font::bold(size), Anchor::Start, &facts.name);
            let usable = format!("{} MiB usable", facts.usable_bytes >> 20);
            let tolerates = match facts.failures_tolerated {
                0 => "tolerates no failure".to_owned(),
                1 => "tolerates 1 failure".to_owned(),
                more => format!("tolerates {more} failures"),
            };
            self.text(x + 21.0, y + 26.0, Font::soft(10.5), Anchor::Start, &usable);
            self.text(x + 21.0, y + 39.0, Font::soft(10.5), Anchor::Start, &tolerates);
        }
        top + report.subjects.len().div_ceil(columns) as f64 * LEGEND_HEIGHT + 18.0
    }

    fn panel(&mut self, panel: &Panel, x: f64, y: f64, width: f64) {
        self.text(x, y + 14.0, Font::bold(13.5), Anchor::Start, &panel.title);
        let size = fitting(&panel.subtitle, 11.0, width / CHARACTER_WIDTH);
        self.text(x, y + 30.0, Font::soft(size), Anchor::Start, &panel.subtitle);
        let (top, bottom) = (y + PANEL_HEAD, y + PANEL_HEAD + PLOT_HEIGHT);
        let values = panel.bars.iter().filter_map(|bar| bar.value.as_ref());
        let highest = values.map(|value| value.rate.max.max(value.ceiling.unwrap_or(0.0))).fold(0.0, f64::max);
        let scale = if highest > 0.0 { (PLOT_HEIGHT - FIGURE_ROOM) / highest } else { 0.0 };
        let height_of = |value: f64| bottom - value * scale;

        let left = x + AXIS_WIDTH;
        for tick in ticks(highest) {
            let at = height_of(tick);
            self.line(left, at, x + width, at, GRID, 1.0);
            self.text(left - 5.0, at + 3.5, Font::soft(9.5), Anchor::End, &tick_label(tick, panel.figure));
        }
        let slot = (x + width - left) / panel.bars.len().max(1) as f64;
        for (at, bar) in panel.bars.iter().enumerate() {
            let middle = left + (at as f64 + 0.5) * slot;
            let bar_width = (slot * 0.66).min(40.0);
            match &bar.value {
                Some(value) => {
                    let (from, to) = (middle - bar_width / 2.0, middle + bar_width / 2.0);
                    let tip = height_of(value.rate.median);
                    self.rectangle(from, tip, bar_width, bottom - tip, &bar.colour);
                    let mut figure_at =
                        self.whisker(middle, height_of(value.rate.min), height_of(value.rate.max)) - 5.0;
                    if let Some(ceiling) = value.ceiling {
                        let ceiling = height_of(ceiling);
                        self.outlined(from - 4.0, ceiling, to + 4.0, ceiling, 2.0);
                        // The figure stands on the whisker, unless the dash would run through it.
                        if (figure_at - 11.0..figure_at + 4.0).contains(&ceiling) {
                            figure_at = ceiling - 5.0;
                        }
                    }
                    let figure = (panel.figure)(value.rate.median) + &value.marks;
                    let size = fitting(&figure, 10.5, (slot - 2.0) / BOLD_WIDTH);
                    self.text(middle, figure_at, Font::bold(size), Anchor::Middle, &figure);
                }
                None => self.text(middle, bottom - 5.0, Font::soft(10.0), Anchor::Middle, "lost"),
            }
            for (line, word) in bar.name.split(' ').enumerate() {
                let size = fitting(word, 10.5, (slot - 3.0) / CHARACTER_WIDTH);
                self.text(middle, bottom + 14.0 + 12.0 * line as f64, Font::plain(size), Anchor::Middle, word);
            }
        }
        self.line(left, bottom, x + width, bottom, SOFT, 1.0);
        debug_assert!(height_of(highest) >= top, "the highest mark is in the plot");
    }

    /// From the slowest repetition to the fastest; gives back its upper end.
    fn whisker(&mut self, x: f64, low: f64, high: f64) -> f64 {
        // Shorter than its own end strokes it would be a blot.
        if low - high >= 3.0 {
            self.outlined(x, low, x, high, 1.0);
            self.outlined(x - 3.0, low, x + 3.0, low, 1.0);
            self.outlined(x - 3.0, high, x + 3.0, high, 1.0);
        }
        high
    }

    fn foot(&mut self, report: &Report, top: f64, inner: f64) -> f64 {
        let mut lines = vec![
            "Bars: median of the repetitions. Whiskers: slowest and fastest. Black dash: what theory allows from the raw \
             file in the same run, its time for each member I/O one after the other, parity arithmetic free."
                .to_owned(),
        ];
        lines.extend(disturbances(report).map(|disturbed| format!("~ {disturbed}")));
        if report.cells.iter().any(|cell| cell.errors > 0) {
            lines.push("! some requests failed.".to_owned());
        }
        lines.extend(report.partial.iter().map(|why| format!("Partial: {why}.")));
        lines.iter().fold(top, |y, line| self.paragraph(y, Font::soft(11.0), line, inner))
    }

    /// Lines of text below `top`, broken between words; gives back their lower end.
    fn paragraph(&mut self, top: f64, font: Font, content: &str, width: f64) -> f64 {
        let columns = (width / (font.size * CHARACTER_WIDTH)) as usize;
        wrapped(content, columns).iter().fold(top, |y, line| {
            let y = y + font.size * 1.45;
            self.text(MARGIN, y, font, Anchor::Start, line);
            y
        })
    }

    fn text(&mut self, x: f64, y: f64, font: Font, anchor: Anchor, content: &str) {
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

    fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str) {
        self.element(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"#
        ));
    }

    fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, colour: &str, width: f64) {
        self.element(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="{width}"/>"#
        ));
    }

    /// A dark line that is seen on dark bars, too.
    fn outlined(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, width: f64) {
        self.line(x1, y1, x2, y2, "#ffffff", width + 2.0);
        self.line(x1, y1, x2, y2, INK, width);
    }

    fn element(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{element}").expect("a string takes everything");
    }

    fn finish(self, width: f64, height: f64) -> String {
        let (width, height) = (width.ceil(), height.ceil());
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n\
             <title>RAID levels compared on this computer</title>\n\
             <rect x=\"0\" y=\"0\" width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// `size`, or what lets `text` fit into a width of so many characters of size 1.
fn fitting(text: &str, size: f64, width: f64) -> f64 {
    size.min(width / text.chars().count().max(1) as f64)
}

/// Megabytes as gigabytes (10⁹ bytes), in three digits.
fn gb(megabytes: f64) -> String {
    let digits = match megabytes {
        m if m < 9_995.0 => 2,
        m if m < 99_950.0 => 1,
        _ => 0,
    };
    format!("{:.digits$}", megabytes / 1e3)
}

/// Three to five round numbers from 0 up to `highest`.
fn ticks(highest: f64) -> Vec<f64> {
    if highest <= 0.0 {
        return vec![0.0];
    }
    let magnitude = 10_f64.powf((highest / 4.0).log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|round| round * magnitude)
        .find(|step| highest / step <= 4.0)
        .expect("ten magnitudes are more than a fourth");
    (0..=(highest / step) as u32).map(|at| f64::from(at) * step).collect()
}

/// A tick in the fewest digits: `0`, `500k`, `2.5M`.
fn tick_label(tick: f64, figure: fn(f64) -> String) -> String {
    if tick == 0.0 {
        return "0".to_owned();
    }
    let label = figure(tick);
    let unit = label.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &label[..label.len() - unit.len()];
    let short = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{short}{unit}")
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
mod tests {
    use super::*;
    use crate::bench::fixture;

    /// A picture has three kinds of tags: opened, closed, both at once. They must nest.
    fn assert_well_formed(svg: &str) {
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

    fn assert_readable(svg: &str) {
        assert_well_formed(svg);
        let size: Vec<f64> = ["width", "height"]
            .iter()
            .map(|name| attribute(svg.split('>').next().unwrap(), name).parse().unwrap())
            .collect();
        let texts = texts(svg);
        assert!(texts.len() > 20);
        for (at, (box_, text)) in texts.iter().enumerate() {
            assert!(box_[0] >= 0.0 && box_[1] >= 0.0 && box_[2] <= size[0] && box_[3] <= size[1], "{text} is cut off");
            for (other, other_text) in &texts[..at] {
                let apart = box_[0] >= other[2] || other[0] >= box_[2] || box_[1] >= other[3] || other[1] >= box_[3];
                assert!(apart, "`{text}` over `{other_text}`: {box_:?} {other:?}");
            }
        }
    }

    #[test]
    fn no_text_covers_another_or_leaves_the_picture() {
        assert_readable(&draw(&fixture::report()));
    }

    #[test]
    fn many_subjects_with_long_names_are_readable_too() {
        let one = fixture::report();
        let mut report = one.clone();
        for copy in 0..3 {
            for facts in &one.subjects[1..] {
                let name = format!("{} {}K <&>", facts.name, 64 << copy);
                for cell in one.cells.iter().filter(|cell| cell.subject == facts.name) {
                    report.cells.push(crate::bench::Cell { subject: name.clone(), ..cell.clone() });
                }
                report.subjects.push(SubjectFacts { name, ..facts.clone() });
            }
        }
        assert_readable(&draw(&report));
    }

    #[test]
    fn a_report_without_figures_is_a_picture_too() {
        let report = Report { cells: Vec::new(), rebuilds: Vec::new(), ..fixture::report() };
        assert_well_formed(&draw(&report));
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(11.0), [0.0, 5.0, 10.0]);
        assert_eq!(ticks(2_310_000.0), [0.0, 1e6, 2e6]);
        assert_eq!(ticks(4.0), [0.0, 1.0, 2.0, 3.0, 4.0]);
        for highest in 1..2000 {
            assert!((2..=5).contains(&ticks(f64::from(highest)).len()), "{highest}");
        }
        assert_eq!((tick_label(500e3, count), tick_label(2.5e6, count)), ("500k".to_owned(), "2.5M".to_owned()));
    }
}
