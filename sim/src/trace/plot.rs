//! Lines in a plane, as SVG: what a browser shows without anything else.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const TICKS: f64 = 5.0;
/// Points of a line that are drawn, at the most.
const POINTS_MAX: usize = 1_000;
/// Told apart by those who see few colours (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#000000"];

/// A picture.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What stands above it.
    pub title: String,
    /// What is counted to the right.
    pub across: &'static str,
    /// What is counted upwards.
    pub up: &'static str,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line: its name, and points from left to right.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is called.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

impl Chart {
    /// The picture as a file.
    #[must_use]
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points).filter(|(x, y)| x.is_finite() && y.is_finite());
        let step_x = step(points().map(|point| point.0).fold(0.0, f64::max));
        let step_y = step(points().map(|point| point.1).fold(0.0, f64::max));
        let x = |value: f64| LEFT + value / (step_x * TICKS) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - value / (step_y * TICKS) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        let mut text = |x: f64, y: f64, anchor: &str, said: &str| {
            let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(said));
        };
        text(LEFT, TOP - 22.0, "start", &self.title);
        text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 12.0, "middle", self.across);
        text(LEFT, TOP - 6.0, "start", self.up);
        for tick in 0..=TICKS as u32 {
            let tick = f64::from(tick);
            text(x(step_x * tick), HEIGHT - BOTTOM + 18.0, "middle", &said(step_x * tick));
            text(LEFT - 8.0, y(step_y * tick) + 4.0, "end", &said(step_y * tick));
        }
        for (at, line) in (0..).zip(&self.lines) {
            text(WIDTH - RIGHT + 34.0, TOP + 18.0 * f64::from(at) + 4.0, "start", &line.name);
        }
        for tick in 0..=TICKS as u32 {
            let level = y(step_y * f64::from(tick));
            let _ = writeln!(out, "<path d=\"M{LEFT} {level:.1}H{:.1}\" stroke=\"#ddd\"/>", WIDTH - RIGHT);
        }
        for (at, line) in (0_u32..).zip(&self.lines) {
            let colour = COLOURS[at as usize % COLOURS.len()];
            let level = TOP + 18.0 * f64::from(at);
            let _ = writeln!(out, "<path d=\"M{:.1} {level:.1}h24\" stroke=\"{colour}\" stroke-width=\"2\"/>", WIDTH - RIGHT + 6.0);
            let each = line.points.len().div_ceil(POINTS_MAX).max(1);
            let shown = line.points.iter().step_by(each).chain(line.points.last()).filter(|(x, y)| x.is_finite() && y.is_finite());
            let path: Vec<String> = shown.map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
            let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>", path.join(" "));
        }
        out.push_str("</svg>\n");
        out
    }
}

/// The distance of ticks: short to write, and so large that all points are below the last.
fn step(most: f64) -> f64 {
    let rough = (most / TICKS).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|times| times * power)
        .find(|step| *step >= rough * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

fn said(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_reach_the_highest_point() {
        for (most, expected) in [(130.0, 30.0), (100.0, 20.0), (1.0, 0.2), (7.0, 1.5), (26.0, 6.0)] {
            assert!((step(most) - expected).abs() < 1e-9, "{most}: {}", step(most));
        }
    }

    #[test]
    fn a_picture_has_each_line_within_its_frame_and_names_escaped() {
        let line = |name: &str, points: &[(f64, f64)]| Line { name: name.into(), points: points.to_vec() };
        let lines = vec![line("a<b", &[(0.0, 0.0), (100.0, 50.0)]), line("c", &[(50.0, f64::NAN), (60.0, 10.0)])];
        let svg = Chart { title: "t & u".into(), across: "x", up: "y", lines }.svg();
        assert!(svg.contains("a&lt;b") && svg.contains("t &amp; u") && !svg.contains("NaN"), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 2);
        let corners = format!("points=\"{LEFT:.1},{:.1} {:.1},{TOP:.1}", HEIGHT - BOTTOM, WIDTH - RIGHT);
        assert!(svg.contains(&corners), "{corners} in {svg}");
    }
}
