//! A failover, and a sweep, as one picture each.

use std::time::Duration;

use super::sweep::Point;
use super::timeline::{self, Line, seconds};
use crate::block::Instant;
use crate::drawing::{Anchor, BOLD_WIDTH, CHARACTER_WIDTH, Canvas, Font, GRID, INK, PALETTE, SOFT, fitting, ticks};
use crate::sim::failover::{FIRST, Outcome, Profile, Scenario};
use crate::units::Span;

/// Pixels.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 32.0;
const PLOT_HEIGHT: f64 = 200.0;
/// Where the texts of a list begin, behind their numbers and times.
const LISTED: f64 = LEFT + 108.0;

const SERVED: &str = PALETTE[1];
const STALL: &str = PALETTE[5];
const NEEDLESS: &str = PALETTE[4];

/// How much higher a plot is than what it shows.
const HEADROOM: f64 = 1.08;

/// Events that are listed below the plot.
const LISTED_MAX: usize = 24;

/// Where a value is drawn.
struct Plot {
    top: f64,
    bottom: f64,
    /// What is drawn at the top.
    highest: f64,
}

impl Plot {
    fn new(top: f64, height: f64, highest: f64) -> Plot {
        Plot { top, bottom: top + height, highest }
    }

    fn height_of(&self, value: f64) -> f64 {
        value / self.highest * (self.bottom - self.top)
    }

    fn y_of(&self, value: f64) -> f64 {
        self.bottom - self.height_of(value)
    }

    /// Lines at round values, with their names left of them.
    fn grid(&self, canvas: &mut Canvas, right: f64, unit: &str) {
        for tick in ticks(self.highest) {
            let y = self.y_of(tick);
            canvas.line(LEFT, y, right, y, GRID, 1.0);
            canvas.text(LEFT - 8.0, y + 4.0, Font::soft(11.0), Anchor::End, &format!("{tick}{unit}"));
        }
    }
}

/// A title, and paragraphs below it; gives back their lower end.
fn head(canvas: &mut Canvas, title: &str, paragraphs: [(Font, &str); 2]) -> f64 {
    let top = canvas.paragraph(LEFT, 8.0, Font::bold(18.0), title, RIGHT - LEFT);
    paragraphs
        .into_iter()
        .fold(top + 2.0, |top, (font, content)| canvas.paragraph(LEFT, top, font, content, RIGHT - LEFT))
}

/// Served per second, the stall, and what happened, numbered.
pub fn draw(name: &str, profile: &Profile, scenario: &Scenario, measured: &Outcome, command: &str) -> String {
    let lines = timeline::lines(profile, measured);
    let listed = &lines[..lines.len().min(LISTED_MAX)];
    let title = format!("{} with the timers of {name}", scenario.name);
    let settings = timeline::settings_line(name, profile, &measured.graph);
    let stall = timeline::stall_line(profile, scenario, measured, &lines);

    let mut canvas = Canvas::default();
    let top = head(&mut canvas, &title, [(Font::soft(12.0), &settings), (Font::plain(12.0), &stall)]);
    let bottom = plot(&mut canvas, top + 32.0, measured, listed);
    let mut y = legend(&mut canvas, bottom + 22.0, measured.longest) + 8.0;
    for (at, line) in listed.iter().enumerate() {
        let baseline = y + 12.0 * 1.45;
        canvas.text(LEFT - 12.0, baseline, Font::bold(12.0), Anchor::End, &(at + 1).to_string());
        let time = format!("t+{:.4} s", line.at.as_secs_f64());
        canvas.text(LISTED - 12.0, baseline, Font::soft(12.0), Anchor::End, &time);
        y = canvas.paragraph(LISTED, y, Font::plain(12.0), &line.text, RIGHT - LISTED);
    }
    if lines.len() > listed.len() {
        let more = format!("and {} more", lines.len() - listed.len());
        y = canvas.paragraph(LISTED, y, Font::soft(12.0), &more, RIGHT - LISTED);
    }
    y = canvas.paragraph(LEFT, y + 8.0, Font::soft(11.0), command, RIGHT - LEFT);
    canvas.finish(&format!("failover: {title}"), WIDTH, y + 16.0)
}

/// What was served in each second, before the stall; gives back the lower end of the numbers below.
fn plot(canvas: &mut Canvas, top: f64, measured: &Outcome, listed: &[Line]) -> f64 {
    let highest = measured.per_second.iter().copied().max().unwrap_or(0).max(1) as f64;
    let plot = Plot::new(top, PLOT_HEIGHT, highest * HEADROOM);
    let length = measured.per_second.len().max(1) as f64;
    let x_of = |second: f64| LEFT + second / length * (RIGHT - LEFT);

    canvas.text(LEFT, top - 8.0, Font::soft(11.0), Anchor::Start, "requests served per second");
    plot.grid(canvas, RIGHT, "");
    let from = measured.longest_from.since(Instant::START).as_secs_f64();
    let width = (x_of(from + measured.longest.as_secs_f64()) - x_of(from)).max(1.0);
    canvas.shade(x_of(from), top, width, PLOT_HEIGHT, STALL, 0.25);
    let mut second = 0.0;
    for same in measured.per_second.chunk_by(|a, b| a == b) {
        let (height, next) = (plot.height_of(same[0] as f64), second + same.len() as f64);
        canvas.rectangle(x_of(second), plot.bottom - height, x_of(next) - x_of(second), height, SERVED);
        second = next;
    }
    canvas.line(LEFT, plot.bottom, RIGHT, plot.bottom, INK, 1.0);
    canvas.rectangle(x_of(from), plot.bottom, width, 4.0, STALL);
    numbers(canvas, &plot, listed, |line| x_of((FIRST + line.at).as_secs_f64()));
    for tick in ticks(length) {
        canvas.text(x_of(tick), plot.bottom + 34.0, Font::soft(11.0), Anchor::Middle, &format!("{tick} s"));
    }
    plot.bottom + 36.0
}

/// Where each listed event was; numbers that would lie on each other are left to the list.
fn numbers(canvas: &mut Canvas, plot: &Plot, listed: &[Line], x_of: impl Fn(&Line) -> f64) {
    let mut end = f64::MIN;
    for (at, line) in listed.iter().enumerate() {
        let (x, number, font) = (x_of(line), (at + 1).to_string(), Font::bold(11.0));
        canvas.dotted(x, plot.top, x, plot.bottom + 6.0, SOFT);
        let half = number.len() as f64 * font.size * BOLD_WIDTH / 2.0;
        if x - half > end {
            canvas.text(x, plot.bottom + 17.0, font, Anchor::Middle, &number);
            end = x + half + 2.0;
        }
    }
}

/// What the colours mean; gives back its lower end.
fn legend(canvas: &mut Canvas, y: f64, longest: Duration) -> f64 {
    canvas.rectangle(LEFT, y - 6.0, 12.0, 4.0, STALL);
    let stall = format!("the longest time that a request stood still: {}", seconds(longest));
    canvas.text(LEFT + 20.0, y, Font::plain(12.0), Anchor::Start, &stall);
    y
}

/// Stalls against needless failovers, by the value of the timer.
pub fn draw_sweep(key: &str, hiccup: Span, hiccups: usize, points: &[Point], command: &str) -> String {
    let title = format!("What {key} trades: a long stall against needless failovers");
    let told = format!("{hiccups} losses of a cable, {hiccup} each on average, and one that lasts");
    let silent: Vec<String> =
        points.iter().map(|point| format!("{} at {}", rounded(point.stalls[1]), Span(point.value))).collect();
    let silent = format!("where nobody says that a path is lost, the stall is {}", silent.join(", "));

    let mut canvas = Canvas::default();
    let top = head(&mut canvas, &title, [(Font::soft(12.0), &told), (Font::soft(12.0), &silent)]);
    let y = sweep_plot(&mut canvas, top + 60.0, key, hiccups, points);
    let y = canvas.paragraph(LEFT, y, Font::soft(11.0), command, RIGHT - LEFT);
    canvas.finish(&title, WIDTH, y + 16.0)
}

/// Bars and their line; gives back the lower end of what is said below them.
fn sweep_plot(canvas: &mut Canvas, top: f64, key: &str, hiccups: usize, points: &[Point]) -> f64 {
    let stalls = points.iter().map(|point| point.stalls[0].as_secs_f64());
    let plot = Plot::new(top, PLOT_HEIGHT * 1.3, stalls.fold(0.1, f64::max));
    let needless = Plot { highest: hiccups.max(1) as f64, ..plot };
    let right = RIGHT - 32.0;
    let slot = (right - LEFT) / points.len() as f64;
    let x_of = |at: usize| LEFT + (at as f64 + 0.5) * slot;

    canvas.shade(LEFT, top - 47.0, 12.0, 12.0, STALL, 0.6);
    canvas.text(
        LEFT + 20.0,
        top - 37.0,
        Font::plain(12.0),
        Anchor::Start,
        "longest stall, if the link says so (bars, left)",
    );
    canvas.rectangle(LEFT + 400.0, top - 45.0, 8.0, 8.0, NEEDLESS);
    canvas.text(LEFT + 416.0, top - 37.0, Font::plain(12.0), Anchor::Start, "needless failovers (line, right)");
    plot.grid(canvas, right, " s");
    for tick in ticks(needless.highest) {
        canvas.text(right + 8.0, needless.y_of(tick) + 4.0, Font::soft(11.0), Anchor::Start, &tick.to_string());
    }
    for (at, point) in points.iter().enumerate() {
        let height = plot.height_of(point.stalls[0].as_secs_f64());
        canvas.shade(x_of(at) - slot / 4.0, plot.bottom - height, slot / 2.0, height, STALL, 0.6);
        let value = Span(point.value).to_string();
        let size = fitting(&value, 11.0, (slot - 4.0) / CHARACTER_WIDTH);
        canvas.text(x_of(at), plot.bottom + 16.0, Font::plain(size), Anchor::Middle, &value);
    }
    for (at, pair) in points.windows(2).enumerate() {
        let [from, to] = [&pair[0], &pair[1]].map(|point| needless.y_of(point.needless as f64));
        canvas.line(x_of(at), from, x_of(at + 1), to, NEEDLESS, 2.0);
    }
    for (at, point) in points.iter().enumerate() {
        let (x, y, count) = (x_of(at), needless.y_of(point.needless as f64), point.needless.to_string());
        canvas.rectangle(x - 4.0, y - 4.0, 8.0, 8.0, NEEDLESS);
        let size = fitting(&count, 11.0, (slot - 2.0) / BOLD_WIDTH);
        canvas.text(x, y - 8.0, Font::bold(size), Anchor::Middle, &count);
    }
    canvas.line(LEFT, plot.bottom, right, plot.bottom, INK, 1.0);
    let middle = (LEFT + right) / 2.0;
    let size = fitting(key, 12.0, (right - LEFT) / CHARACTER_WIDTH);
    canvas.text(middle, plot.bottom + 36.0, Font::plain(size), Anchor::Middle, key);
    plot.bottom + 44.0
}

fn rounded(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::tests::assert_readable;
    use crate::sim::failover::{Client, ProfileName, SCENARIOS, run};

    /// Of all that is shipped, with long words besides.
    #[test]
    fn no_text_of_a_failover_covers_another_or_leaves_the_picture() {
        let client = Client { rate: 10, ..Client::default() };
        for name in ProfileName::ALL {
            let profile = name.profile();
            let graph = profile.preset.graph();
            for scenario in SCENARIOS {
                let mut scenario = Scenario::shipped(scenario, &graph, &profile).expect("it is shipped");
                let measured = run(&profile, graph.clone(), &scenario, client);
                let command = format!("raidlab failover --scenario {}", "directory/".repeat(30));
                assert_readable(&draw(name.name(), &profile, &scenario, &measured, &command));
                scenario.name = "a-story-of-ones-own/".repeat(12);
                assert_readable(&draw(name.name(), &profile, &scenario, &measured, &command));
            }
        }
    }

    #[test]
    fn no_text_of_a_sweep_covers_another_or_leaves_the_picture() {
        for count in [2, 3, 9, 26, 40] {
            let point = |at: u64| Point {
                value: Duration::from_millis(100 * (at + 1)),
                stalls: [Duration::from_millis(101 * (at + 1)), Duration::from_secs(6 * (at + 1))],
                needless: 100 - at as usize * 100 / count as usize,
            };
            let points: Vec<Point> = (0..count).map(point).collect();
            let command = "raidlab failover --profile classic --sweep fast_io_fail_tmo=1s..60s ".repeat(3);
            assert_readable(&draw_sweep("hba_timeout", Span(Duration::from_secs(3)), 100, &points, command.trim()));
        }
    }
}
