//! A line chart as SVG. Colours, fonts and the look in the dark are the page's.

use std::fmt::Write;

use super::escape;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 48.0;
/// Colours that the page's style has.
pub const COLOUR_COUNT: usize = 8;

/// How numbers come to lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// By decade.
    Log,
    /// Quantiles: each further nine takes the same room.
    Nines,
}

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What its numbers are, with their unit.
    pub title: &'static str,
    /// How they lie.
    pub scale: Scale,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is.
    pub label: String,
    /// Its colour; the same for lines that belong together.
    pub colour: usize,
    /// Drawn with gaps.
    pub is_dashed: bool,
    /// A mark at each point.
    pub has_marks: bool,
    /// In order of x.
    pub points: Vec<(f64, f64)>,
}

/// An axis with its range: from number to the share of the axis's length.
struct Fitted {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Fitted {
    fn new(scale: Scale, numbers: impl Iterator<Item = f64>) -> Fitted {
        let placed = numbers.filter_map(|number| place(scale, number));
        let (mut low, mut high) =
            placed.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)));
        match scale {
            Scale::Linear => low = 0.0,
            Scale::Log => (low, high) = (low.floor(), high.ceil()),
            Scale::Nines => (low, high) = (0.0, high.ceil()),
        }
        if !(low.is_finite() && high.is_finite()) {
            (low, high) = (0.0, 1.0);
        }
        if high <= low {
            high = low + 1.0;
        }
        Fitted { scale, low, high }
    }

    fn share(&self, number: f64) -> Option<f64> {
        Some((place(self.scale, number)? - self.low) / (self.high - self.low))
    }

    /// Where lines go across, and what is written there.
    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let step = round_step((self.high - self.low) / 6.0);
                let count = (self.high / step).floor() as usize;
                (0..=count).map(|index| index as f64 * step).map(|at| (at / self.high, short(at))).collect()
            }
            Scale::Log => {
                let decades = self.low as i32..=self.high as i32;
                decades.map(|decade| self.labelled(f64::from(decade), short(10f64.powi(decade)))).collect()
            }
            Scale::Nines => {
                let nines = 0..=self.high as usize;
                let text = |nines: usize| match nines {
                    0 => "0".to_string(),
                    1 => "90 %".to_string(),
                    2 => "99 %".to_string(),
                    more => format!("99.{} %", "9".repeat(more - 2)),
                };
                nines.map(|nines| self.labelled(nines as f64, text(nines))).collect()
            }
        }
    }

    fn labelled(&self, at: f64, text: String) -> (f64, String) {
        ((at - self.low) / (self.high - self.low), text)
    }
}

/// Where a number lies on an endless axis; `None` if it has no place there.
fn place(scale: Scale, number: f64) -> Option<f64> {
    let at = match scale {
        Scale::Linear => number,
        Scale::Log => number.log10(),
        Scale::Nines => -(1.0 - number).log10(),
    };
    at.is_finite().then_some(at)
}

/// 1, 2 or 5 times a power of ten, not less than `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= least).unwrap_or(least)
}

/// A number with at most three digits and a unit of thousand.
pub fn short(number: f64) -> String {
    let (scaled, unit) = match number.abs() {
        n if n >= 1e9 => (number / 1e9, "G"),
        n if n >= 1e6 => (number / 1e6, "M"),
        n if n >= 1e3 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let text = format!("{scaled:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

/// The chart. Points without a place on its axes (nothing at or below zero on a logarithmic one) are left out.
pub fn chart(title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let numbers = |of: fn(&(f64, f64)) -> f64| lines.iter().flat_map(move |line| line.points.iter().map(of));
    let (across, up) = (Fitted::new(x.scale, numbers(|point| point.0)), Fitted::new(y.scale, numbers(|point| point.1)));
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let at_x = |share: f64| LEFT + share * width;
    let at_y = |share: f64| TOP + (1.0 - share) * height;
    let mut svg = String::new();
    // Writing into a string cannot fail.
    let mut put = |text: std::fmt::Arguments<'_>| svg.write_fmt(text).unwrap_or_default();
    put(format_args!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n", escape(title)));
    for (share, text) in across.ticks() {
        let (x, bottom) = (at_x(share), TOP + height);
        put(format_args!("<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\n"));
        put(format_args!("<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>\n", bottom + 16.0));
    }
    for (share, text) in up.ticks() {
        let (y, right) = (at_y(share), LEFT + width);
        put(format_args!("<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\n"));
        put(format_args!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n", LEFT - 6.0, y + 4.0));
    }
    let (middle_x, middle_y) = (LEFT + width / 2.0, TOP + height / 2.0);
    put(format_args!(
        "<text x=\"{middle_x}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
        HEIGHT - 8.0,
        escape(x.title)
    ));
    put(format_args!(
        "<text transform=\"translate(14 {middle_y}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        escape(y.title)
    ));
    for line in lines {
        let class = format!("line c{}{}", line.colour % COLOUR_COUNT, if line.is_dashed { " dashed" } else { "" });
        let placed: Vec<(f64, f64)> =
            line.points.iter().filter_map(|(x, y)| Some((at_x(across.share(*x)?), at_y(up.share(*y)?)))).collect();
        let points: Vec<String> = placed.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let label = escape(&line.label);
        put(format_args!(
            "<polyline class=\"{class}\" points=\"{}\"><title>{label}</title></polyline>\n",
            points.join(" ")
        ));
        for (x, y) in placed.iter().filter(|_| line.has_marks || placed.len() == 1) {
            put(format_args!(
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{label}</title></circle>\n"
            ));
        }
    }
    put(format_args!("</svg>\n"));
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_where_their_scale_puts_them() {
        let linear = Fitted::new(Scale::Linear, [20.0, 80.0].into_iter());
        assert_eq!((linear.share(0.0), linear.share(40.0)), (Some(0.0), Some(0.5)));
        let log = Fitted::new(Scale::Log, [20.0, 8000.0].into_iter());
        assert_eq!((log.share(10.0), log.share(10_000.0), log.share(0.0)), (Some(0.0), Some(1.0), None));
        let nines = Fitted::new(Scale::Nines, [0.0, 0.9995].into_iter());
        assert!((nines.share(0.99).unwrap() - 0.5).abs() < 1e-9 && nines.share(1.0).is_none());
        // Nothing to show is no reason to fail.
        assert!(Fitted::new(Scale::Log, [0.0, -1.0].into_iter()).high > 0.0);
    }

    #[test]
    fn ticks_are_round_numbers() {
        let texts = |scale, numbers: &[f64]| {
            Fitted::new(scale, numbers.iter().copied()).ticks().into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        assert_eq!(texts(Scale::Linear, &[0.0, 1_100_000.0]), ["0", "200k", "400k", "600k", "800k", "1M"]);
        assert_eq!(texts(Scale::Log, &[15.0, 900.0]), ["10", "100", "1k"]);
        assert_eq!(texts(Scale::Nines, &[0.0, 0.9991]), ["0", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let line = Line {
            label: "a < b".into(),
            colour: 9,
            is_dashed: true,
            has_marks: true,
            points: vec![(0.0, 1.0), (10.0, 100.0), (5.0, 0.0)],
        };
        let (x, y) = (Axis { title: "x", scale: Scale::Linear }, Axis { title: "y", scale: Scale::Log });
        let svg = chart("t", &x, &y, &[line]);
        assert!(svg.contains("points=\"72.0,292.0 744.0,12.0\""), "{svg}");
        assert!(svg.contains("line c1 dashed") && svg.contains("a &lt; b"));
        assert_eq!(svg.matches("<circle").count(), 2);
    }
}
