//! The report as one picture: small multiples, one panel a workload, one bar a subject.
//!
//! Each panel has its own linear scale from zero: levels are compared within a workload, not across. Every bar is named and
//! carries its figure besides.

use super::report::{Report, Spread, State, SubjectFacts};
use super::table::{compared, count, disturbances, lost, mb, method, rows, says_something, shown_in_mb};
use super::{Disturbance, Mix, Shape};
use crate::drawing::{Anchor, BOLD_WIDTH, CHARACTER_WIDTH, Canvas, Font, GRID, INK, PALETTE, SOFT, fitting, ticks};

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

const TITLE: &str = "RAID levels compared on this computer";
const RAW: &str = "#8a8a8a";

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

    let mut canvas = Canvas::default();
    let mut y = head(&mut canvas, report, inner);
    y = legend(&mut canvas, report, y, inner);
    for (at, panel) in panels.iter().enumerate() {
        let x = MARGIN + (at % columns) as f64 * (panel_width + PANEL_GAP);
        draw_panel(&mut canvas, panel, x, y + (at / columns) as f64 * panel_height, panel_width);
    }
    y += panels.len().div_ceil(columns) as f64 * panel_height;
    y = foot(&mut canvas, report, y, inner);
    canvas.finish(TITLE, width, y + MARGIN / 2.0)
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

fn head(canvas: &mut Canvas, report: &Report, inner: f64) -> f64 {
    let mut y = MARGIN + 14.0;
    canvas.text(MARGIN, y, Font::bold(22.0), Anchor::Start, TITLE);
    y += 8.0;
    for line in [report.measured.to_string(), report.machine.to_string(), method(report)] {
        y = canvas.paragraph(MARGIN, y, Font::soft(12.0), &line, inner);
    }
    y + 16.0
}

fn legend(canvas: &mut Canvas, report: &Report, top: f64, inner: f64) -> f64 {
    let columns = ((inner / LEGEND_WIDTH) as usize).clamp(1, report.subjects.len().max(1));
    let column_width = inner / columns as f64;
    for (at, facts) in report.subjects.iter().enumerate() {
        let x = MARGIN + (at % columns) as f64 * column_width;
        let y = top + (at / columns) as f64 * LEGEND_HEIGHT;
        canvas.rectangle(x, y, 14.0, 14.0, &colour(report, at));
        let size = fitting(&facts.name, 12.5, (column_width - 30.0) / BOLD_WIDTH);
        canvas.text(x + 21.0, y + 11.5, Font::bold(size), Anchor::Start, &facts.name);
        let usable = format!("{} MiB usable", facts.usable_bytes >> 20);
        let tolerates = match facts.failures_tolerated {
            0 => "tolerates no failure".to_owned(),
            1 => "tolerates 1 failure".to_owned(),
            more => format!("tolerates {more} failures"),
        };
        canvas.text(x + 21.0, y + 26.0, Font::soft(10.5), Anchor::Start, &usable);
        canvas.text(x + 21.0, y + 39.0, Font::soft(10.5), Anchor::Start, &tolerates);
    }
    top + report.subjects.len().div_ceil(columns) as f64 * LEGEND_HEIGHT + 18.0
}

fn draw_panel(canvas: &mut Canvas, panel: &Panel, x: f64, y: f64, width: f64) {
    canvas.text(x, y + 14.0, Font::bold(13.5), Anchor::Start, &panel.title);
    let size = fitting(&panel.subtitle, 11.0, width / CHARACTER_WIDTH);
    canvas.text(x, y + 30.0, Font::soft(size), Anchor::Start, &panel.subtitle);
    let (top, bottom) = (y + PANEL_HEAD, y + PANEL_HEAD + PLOT_HEIGHT);
    let values = panel.bars.iter().filter_map(|bar| bar.value.as_ref());
    let highest = values.map(|value| value.rate.max.max(value.ceiling.unwrap_or(0.0))).fold(0.0, f64::max);
    let scale = if highest > 0.0 { (PLOT_HEIGHT - FIGURE_ROOM) / highest } else { 0.0 };
    let height_of = |value: f64| bottom - value * scale;

    let left = x + AXIS_WIDTH;
    for tick in ticks(highest) {
        let at = height_of(tick);
        canvas.line(left, at, x + width, at, GRID, 1.0);
        canvas.text(left - 5.0, at + 3.5, Font::soft(9.5), Anchor::End, &tick_label(tick, panel.figure));
    }
    let slot = (x + width - left) / panel.bars.len().max(1) as f64;
    for (at, bar) in panel.bars.iter().enumerate() {
        let middle = left + (at as f64 + 0.5) * slot;
        let bar_width = (slot * 0.66).min(40.0);
        match &bar.value {
            Some(value) => {
                let (from, to) = (middle - bar_width / 2.0, middle + bar_width / 2.0);
                let tip = height_of(value.rate.median);
                canvas.rectangle(from, tip, bar_width, bottom - tip, &bar.colour);
                let mut figure_at = whisker(canvas, middle, height_of(value.rate.min), height_of(value.rate.max)) - 5.0;
                if let Some(ceiling) = value.ceiling {
                    let ceiling = height_of(ceiling);
                    outlined(canvas, from - 4.0, ceiling, to + 4.0, ceiling, 2.0);
                    // The figure stands on the whisker, unless the dash would run through it.
                    if (figure_at - 11.0..figure_at + 4.0).contains(&ceiling) {
                        figure_at = ceiling - 5.0;
                    }
                }
                let figure = (panel.figure)(value.rate.median) + &value.marks;
                let size = fitting(&figure, 10.5, (slot - 2.0) / BOLD_WIDTH);
                canvas.text(middle, figure_at, Font::bold(size), Anchor::Middle, &figure);
            }
            None => canvas.text(middle, bottom - 5.0, Font::soft(10.0), Anchor::Middle, "lost"),
        }
        for (line, word) in bar.name.split(' ').enumerate() {
            let size = fitting(word, 10.5, (slot - 3.0) / CHARACTER_WIDTH);
            canvas.text(middle, bottom + 14.0 + 12.0 * line as f64, Font::plain(size), Anchor::Middle, word);
        }
    }
    canvas.line(left, bottom, x + width, bottom, SOFT, 1.0);
    debug_assert!(height_of(highest) >= top, "the highest mark is in the plot");
}

/// From the slowest repetition to the fastest; gives back its upper end.
fn whisker(canvas: &mut Canvas, x: f64, low: f64, high: f64) -> f64 {
    // Shorter than its own end strokes it would be a blot.
    if low - high >= 3.0 {
        outlined(canvas, x, low, x, high, 1.0);
        outlined(canvas, x - 3.0, low, x + 3.0, low, 1.0);
        outlined(canvas, x - 3.0, high, x + 3.0, high, 1.0);
    }
    high
}

fn foot(canvas: &mut Canvas, report: &Report, top: f64, inner: f64) -> f64 {
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
    lines.iter().fold(top, |y, line| canvas.paragraph(MARGIN, y, Font::soft(11.0), line, inner))
}

/// A dark line that is seen on dark bars, too.
fn outlined(canvas: &mut Canvas, x1: f64, y1: f64, x2: f64, y2: f64, width: f64) {
    canvas.line(x1, y1, x2, y2, "#ffffff", width + 2.0);
    canvas.line(x1, y1, x2, y2, INK, width);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;
    use crate::drawing::tests::{assert_readable, assert_well_formed};

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
    fn a_tick_has_the_fewest_digits() {
        assert_eq!((tick_label(500e3, count), tick_label(2.5e6, count)), ("500k".to_owned(), "2.5M".to_owned()));
    }
}
