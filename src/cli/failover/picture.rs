//! A failover, and a sweep, as one picture each.
//!
//! SVG without scripts or outside resources, on a white ground of its own; colours of Okabe and Ito, and nothing is said by colour alone.

use std::fmt::Write as _;
use std::time::Duration;

use super::sweep::Point;
use super::timeline::{self, Line, seconds};
use crate::block::Instant;
use crate::sim::failover::{FIRST, Outcome, Profile, Scenario};
use crate::units::Span;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 92.0;
const PLOT: f64 = 180.0;
const LINE: f64 = 17.0;
const INK: &str = "#1b1b1b";
const SOFT: &str = "#5c5c5c";
const GRID: &str = "#e3e3e3";
const SERVED: &str = "#56b4e9";
const STALL: &str = "#d55e00";
const OTHER: &str = "#0072b2";

/// Events that are listed below the plot.
const LISTED_MAX: usize = 24;

struct Sheet {
    text: String,
}

impl Sheet {
    fn new(height: f64, title: &str) -> Sheet {
        let mut text = String::new();
        let title = escaped(title);
        write!(
            text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        )
        .expect("text takes all");
        Sheet { text }
    }

    fn words(&mut self, x: f64, y: f64, size: u32, colour: &str, anchor: &str, words: &str) {
        let words = escaped(words);
        writeln!(
            self.text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{colour}\" text-anchor=\"{anchor}\">{words}</text>"
        )
        .expect("text takes all");
    }

    fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str, opacity: f64) {
        writeln!(
            self.text,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>"
        )
        .expect("text takes all");
    }

    fn stroke(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, dashes: &str) {
        writeln!(
            self.text,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\"/>",
            from.0, from.1, to.0, to.1
        )
        .expect("text takes all");
    }

    fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A round step that gives five to ten marks up to `most`.
fn step(most: f64) -> f64 {
    let decade = 10_f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * decade).find(|step| most / step <= 8.0).unwrap_or(most)
}

/// Served per second, the stall, and what happened, numbered.
pub fn draw(name: &str, profile: &Profile, scenario: &Scenario, measured: &Outcome, command: &str) -> String {
    let lines = timeline::lines(&profile.preset.graph(), profile, measured);
    let listed: Vec<&Line> = lines.iter().take(LISTED_MAX).collect();
    let more = lines.len() - listed.len();
    let bottom = TOP + PLOT;
    let height = bottom + 58.0 + LINE * (listed.len() + usize::from(more > 0) + 3) as f64;
    let mut sheet = Sheet::new(height, &format!("failover: {}, profile {name}", scenario.name));
    sheet.words(LEFT, 30.0, 18, INK, "start", &format!("{} with the timers of {name}", scenario.name));
    sheet.words(LEFT, 50.0, 12, SOFT, "start", &timeline::settings_line(name, profile));
    sheet.words(LEFT, 68.0, 12, INK, "start", &timeline::stall_line(profile, scenario, measured, &lines));

    let length = measured.per_second.len().max(1) as f64;
    let x_of = |second: f64| LEFT + second / length * (WIDTH - LEFT - RIGHT);
    let most = measured.per_second.iter().copied().max().unwrap_or(1).max(1) as f64;
    let mut mark = 0.0;
    while mark <= most {
        let y = bottom - mark / most * PLOT;
        sheet.stroke((LEFT, y), (WIDTH - RIGHT, y), GRID, "");
        sheet.words(LEFT - 8.0, y + 4.0, 11, SOFT, "end", &format!("{mark}"));
        mark += step(most);
    }
    sheet.words(LEFT, TOP - 8.0, 11, SOFT, "start", "requests served per second");
    for (second, served) in measured.per_second.iter().enumerate() {
        let height = *served as f64 / most * PLOT;
        let wide = (x_of(1.0) - x_of(0.0)).max(1.2) - 0.2;
        sheet.bar(x_of(second as f64), bottom - height, wide, height, SERVED, 1.0);
    }
    let from = measured.longest_from.since(Instant::START).as_secs_f64();
    let wide = x_of(from + measured.longest.as_secs_f64()) - x_of(from);
    sheet.bar(x_of(from), TOP, wide.max(1.0), PLOT, STALL, 0.18);
    sheet.stroke((LEFT, bottom), (WIDTH - RIGHT, bottom), INK, "");
    let mut second = 0.0;
    while second <= length {
        sheet.words(x_of(second), bottom + 16.0, 11, SOFT, "middle", &format!("{second} s"));
        second += step(length);
    }

    let mut number_end = f64::MIN;
    for (number, line) in listed.iter().enumerate() {
        let x = x_of((FIRST + line.at).as_secs_f64());
        sheet.stroke((x, TOP), (x, bottom), SOFT, "2 3");
        // Numbers that would lie on each other are left to the list.
        if x > number_end {
            sheet.words(x, bottom + 32.0, 11, INK, "middle", &format!("{}", number + 1));
            number_end = x + 18.0;
        }
    }
    let mut y = bottom + 56.0;
    for (number, line) in listed.iter().enumerate() {
        sheet.words(LEFT, y, 12, INK, "end", &format!("{}", number + 1));
        sheet.words(LEFT + 84.0, y, 12, SOFT, "end", &format!("t+{:.4} s", line.at.as_secs_f64()));
        sheet.words(LEFT + 96.0, y, 12, INK, "start", &line.text);
        y += LINE;
    }
    if more > 0 {
        sheet.words(LEFT + 96.0, y, 12, SOFT, "start", &format!("and {more} more"));
        y += LINE;
    }
    y += 6.0;
    sheet.bar(LEFT, y - 10.0, 12.0, 12.0, STALL, 0.18);
    let stall = format!("the longest time that a request stood still: {}", seconds(measured.longest));
    sheet.words(LEFT + 20.0, y, 12, SOFT, "start", &stall);
    sheet.words(LEFT, y + LINE, 11, SOFT, "start", command);
    sheet.finish()
}

/// Stalls against needless failovers, by the value of the timer.
pub fn draw_sweep(key: &str, hiccup: Span, hiccups: usize, points: &[Point], command: &str) -> String {
    let bottom = TOP + PLOT * 1.4;
    let height = bottom + 110.0;
    let mut sheet = Sheet::new(height, &format!("what {key} trades"));
    sheet.words(LEFT, 30.0, 18, INK, "start", &format!("What {key} trades: a long stall against needless failovers"));
    let told = format!("stall when the link says so, in seconds; failovers of {hiccups} losses of {hiccup} on average");
    sheet.words(LEFT, 50.0, 12, SOFT, "start", &told);
    let plot = bottom - TOP;
    let right = WIDTH - LEFT;
    let x_of = |at: usize| LEFT + (at as f64 + 0.5) / points.len() as f64 * (right - LEFT);
    let most = points.iter().map(|point| point.stalls[0].as_secs_f64()).fold(0.1, f64::max);
    let mut mark = 0.0;
    while mark <= most {
        let y = bottom - mark / most * plot;
        sheet.stroke((LEFT, y), (right, y), GRID, "");
        sheet.words(LEFT - 8.0, y + 4.0, 11, SOFT, "end", &format!("{mark:.0} s"));
        mark += step(most);
    }
    let y_of = |needless: usize| bottom - needless as f64 / hiccups as f64 * plot;
    for needless in [0, hiccups / 2, hiccups] {
        sheet.words(right + 8.0, y_of(needless) + 4.0, 11, OTHER, "start", &needless.to_string());
    }
    let wide = (right - LEFT) / points.len() as f64 * 0.5;
    for (at, point) in points.iter().enumerate() {
        let height = point.stalls[0].as_secs_f64() / most * plot;
        sheet.bar(x_of(at) - wide / 2.0, bottom - height, wide, height, STALL, 0.55);
        sheet.words(x_of(at), bottom + 16.0, 11, INK, "middle", &Span(point.value).to_string());
    }
    for (at, pair) in points.windows(2).enumerate() {
        let ends = [y_of(pair[0].needless), y_of(pair[1].needless)];
        sheet.stroke((x_of(at), ends[0]), (x_of(at + 1), ends[1]), OTHER, "");
    }
    for (at, point) in points.iter().enumerate() {
        let y = y_of(point.needless);
        sheet.bar(x_of(at) - 4.0, y - 4.0, 8.0, 8.0, OTHER, 1.0);
        sheet.words(x_of(at) + 8.0, y - 7.0, 11, OTHER, "start", &point.needless.to_string());
    }
    sheet.stroke((LEFT, bottom), (right, bottom), INK, "");
    sheet.bar(LEFT, bottom + 36.0, 12.0, 12.0, STALL, 0.55);
    sheet.words(LEFT + 20.0, bottom + 46.0, 12, INK, "start", "longest stall (bars, left scale)");
    sheet.bar(LEFT + 280.0, bottom + 38.0, 8.0, 8.0, OTHER, 1.0);
    sheet.words(LEFT + 296.0, bottom + 46.0, 12, INK, "start", "needless failovers (line, right scale)");
    let silent: Vec<String> =
        points.iter().map(|point| format!("{}: {}", Span(point.value), rounded(point.stalls[1]))).collect();
    sheet.words(LEFT, bottom + 68.0, 11, SOFT, "start", &format!("stall of a silent loss: {}", silent.join(", ")));
    sheet.words(LEFT, bottom + 90.0, 11, SOFT, "start", command);
    sheet.finish()
}

fn rounded(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
