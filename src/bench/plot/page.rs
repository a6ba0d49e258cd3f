//! The page: which charts and tables a set of results makes.
//!
//! Runs with the same label are rounds of one thing: they share a colour, and tables give their median and range.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use super::chart::{Axis, Line, Scale, chart};
use super::escape;
use crate::bench::floor::ratios::ratios;
use crate::bench::results::{RunResult, StreamResult, median};

const STYLE: &str = "
:root { color-scheme: light dark; --back: #ffffff; --text: #1c1e21; --faint: #5d6470; --grid: #d9dde3; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171b; --text: #e6e8eb; --faint: #9aa3ad; --grid: #333a42; }
}
body { background: var(--back); color: var(--text); font: 15px/1.45 system-ui, sans-serif; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p, figcaption { color: var(--faint); }
svg { width: 100%; height: auto; } svg text { fill: var(--faint); font-size: 11px; }
figure { margin: 0; }
.grid { stroke: var(--grid); stroke-width: 1; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .dashed { stroke-dasharray: 5 4; }
circle.line { fill: var(--back); }
.c0 { stroke: #2f7fc1; } .c1 { stroke: #d9601a; } .c2 { stroke: #1d9a73; } .c3 { stroke: #c4679c; }
.c4 { stroke: #c99a17; } .c5 { stroke: #7a6fd0; } .c6 { stroke: #b03a3a; } .c7 { stroke: #7d8590; }
.legend span { margin-right: 1.2em; white-space: nowrap; } .legend svg { width: 1.6em; height: .7em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .7em; border-bottom: 1px solid var(--grid); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } small { color: var(--faint); }
";

/// Figures of the table of costs, as result files name them, with their heading and decimals.
const COSTS: [(&str, &str, usize); 6] = [
    ("broker_cpu_seconds_per_gib", "broker CPU s/GiB", 3),
    ("broker_cpu_seconds_per_million_requests", "broker CPU s/M requests", 2),
    ("machine_less_client_cpu_seconds_per_gib", "machine less client, CPU s/GiB", 3),
    ("machine_less_client_cpu_seconds_per_million_requests", "machine less client, CPU s/M requests", 2),
    ("broker_resident_mib", "broker memory MiB", 0),
    ("client_cpu_utilization", "client CPU, cores", 2),
];

/// The page of some runs, and of a floor to compare them with.
pub fn page(title: &str, runs: &[RunResult], floor: Option<&Value>) -> String {
    let mut labels: Vec<&str> = Vec::new();
    for run in runs {
        if !labels.contains(&run.label.as_str()) {
            labels.push(&run.label);
        }
    }
    let streams: BTreeSet<&str> =
        runs.iter().flat_map(|run| run.streams.iter().map(|(name, _)| name.as_str())).collect();
    let mut html = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    html += &format!("<title>{0}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{0}</h1>\n", escape(title));
    html += &format!("<p>{}</p>\n", escape(&hosts(runs)));
    html += &legend(&labels);
    for stream in streams {
        html += &stream_section(stream, runs, &labels);
    }
    html += "<h2>What it cost</h2>\n";
    html += &cost_table(runs, &labels);
    if let Some(floor) = floor {
        html += "<h2>Compared with the floor</h2>\n<p>Each figure divided by what a server that does next to nothing \
                 reaches on this host.</p>\n";
        html += &floor_table(runs, floor);
    }
    html += "<h2>Runs</h2>\n";
    html += &run_list(runs);
    html + "</body>\n</html>\n"
}

fn hosts(runs: &[RunResult]) -> String {
    let texts: BTreeSet<String> = runs
        .iter()
        .map(|run| {
            let host = &run.json["host"];
            let cpu = host["cpu"].as_str().unwrap_or("unknown CPU");
            format!("{} × {cpu}, Linux {}", host["cpus"], host["kernel"].as_str().unwrap_or("?"))
        })
        .collect();
    texts.into_iter().collect::<Vec<_>>().join("; ")
}

fn legend(labels: &[&str]) -> String {
    let entries = labels.iter().enumerate().map(|(colour, label)| {
        let class = format!("line c{}", colour % super::chart::COLOUR_COUNT);
        let stroke =
            format!("<svg viewBox=\"0 0 20 8\"><line class=\"{class}\" x1=\"0\" y1=\"4\" x2=\"20\" y2=\"4\"/></svg>");
        format!("<span>{stroke} {}</span>", escape(label))
    });
    format!("<p class=\"legend\">{}</p>\n", entries.collect::<Vec<_>>().join("\n"))
}

/// The charts and the table of one stream.
fn stream_section(name: &str, runs: &[RunResult], labels: &[&str]) -> String {
    let of_label = |label: &str| {
        let label = label.to_string();
        runs.iter().filter(move |run| run.label == label).filter_map(|run| run.stream(name))
    };
    let line = |label: &str, colour: usize, points: Vec<(f64, f64)>| Line {
        label: label.to_string(),
        colour,
        is_dashed: false,
        has_marks: false,
        points,
    };
    let (mut percentiles, mut curves, mut rates, mut tails) = (vec![], vec![], vec![], vec![]);
    let mut is_curve = false;
    for (colour, label) in labels.iter().enumerate() {
        for stream in of_label(label) {
            percentiles.push(line(label, colour, stream.percentiles.clone()));
            let rows = stream.series.iter();
            let middle = |row: &crate::bench::results::SeriesRow| row.start + row.seconds / 2.0;
            let seconds = |seconds: f64| seconds.max(1e-9);
            rates.push(line(
                label,
                colour,
                rows.clone().map(|row| (middle(row), row.requests as f64 / seconds(row.seconds))).collect(),
            ));
            tails.push(line(label, colour, rows.map(|row| (middle(row), row.p99_us)).collect()));
        }
        let curve = |of: fn(&StreamResult) -> f64, what: &str, is_dashed: bool| {
            let mut points: Vec<(f64, f64)> =
                of_label(label).map(|stream| (stream.requests_per_second, of(stream))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Line { is_dashed, has_marks: true, ..line(&format!("{label}, {what}"), colour, points) }
        };
        let p99 = curve(|stream| stream.p99_us, "p99", false);
        is_curve |= p99.points.len() > 1 || labels.len() > 1;
        curves.extend([p99, curve(|stream| stream.p50_us, "p50", true)]);
    }
    let latency = || Axis { title: "latency, µs", scale: Scale::Log };
    let seconds = || Axis { title: "seconds", scale: Scale::Linear };
    let rate = || Axis { title: "requests/s", scale: Scale::Linear };
    let figure = |caption: &str, chart: String| {
        format!("<figure>\n<figcaption>{}</figcaption>\n{chart}</figure>\n", escape(caption))
    };
    let mut html = format!("<h2>{}</h2>\n", escape(name));
    html += &stream_table(name, runs, labels);
    let quantiles = Axis { title: "percentile", scale: Scale::Nines };
    html += &figure("Latency by percentile", chart("latency by percentile", &quantiles, &latency(), &percentiles));
    if is_curve {
        let caption = "Throughput against latency: p99, and p50 with gaps; one point a run";
        html += &figure(caption, chart("throughput against latency", &rate(), &latency(), &curves));
    }
    html += &figure("Requests a second over time", chart("rate over time", &seconds(), &rate(), &rates));
    html += &figure("p99 of each interval over time", chart("p99 over time", &seconds(), &latency(), &tails));
    html
}

fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = String::from("<div class=\"wide\"><table>\n<tr>");
    for cell in header {
        html += &format!("<th>{}</th>", escape(cell));
    }
    html += "</tr>\n";
    for row in rows {
        html += "<tr>";
        for cell in row {
            // Cells come escaped: some have a range in small print.
            html += &format!("<td>{cell}</td>");
        }
        html += "</tr>\n";
    }
    html + "</table></div>\n"
}

/// Median, and the range if there are several.
fn spread(mut numbers: Vec<f64>, decimals: usize) -> String {
    if numbers.is_empty() {
        return String::new();
    }
    let middle = median(&mut numbers);
    let mut text = format!("{middle:.decimals$}");
    if numbers.len() > 1 {
        let (least, most) = (numbers[0], numbers[numbers.len() - 1]);
        let _ = write!(text, " <small>{least:.decimals$}–{most:.decimals$}</small>");
    }
    text
}

fn stream_table(name: &str, runs: &[RunResult], labels: &[&str]) -> String {
    let header = ["run", "rounds", "requests/s", "MiB/s", "p50 µs", "p99 µs", "p99.9 µs", "max µs"];
    let rows = labels.iter().filter_map(|label| {
        let of = runs.iter().filter(|run| run.label == **label).filter_map(|run| run.stream(name));
        let of: Vec<_> = of.collect();
        let figure = |of_stream: fn(&StreamResult) -> f64, decimals| {
            spread(of.iter().map(|stream| of_stream(stream)).collect(), decimals)
        };
        (!of.is_empty()).then(|| {
            vec![
                escape(label),
                of.len().to_string(),
                figure(|stream| stream.requests_per_second, 0),
                figure(|stream| stream.mib_per_second, 1),
                figure(|stream| stream.p50_us, 0),
                figure(|stream| stream.p99_us, 0),
                figure(|stream| stream.p999_us, 0),
                figure(|stream| stream.max_us, 0),
            ]
        })
    });
    table(&header, &rows.collect::<Vec<_>>())
}

fn cost_table(runs: &[RunResult], labels: &[&str]) -> String {
    let mut header = vec!["run"];
    header.extend(COSTS.iter().map(|(_, title, _)| *title));
    let rows = labels.iter().map(|label| {
        let of = runs.iter().filter(|run| run.label == **label);
        let cells = COSTS.iter().map(|(name, _, decimals)| {
            let numbers: Vec<f64> = of.clone().filter_map(|run| run.figure(name)).collect();
            spread(numbers, *decimals)
        });
        std::iter::once(escape(label)).chain(cells).collect()
    });
    table(&header, &rows.collect::<Vec<_>>())
}

fn floor_table(runs: &[RunResult], floor: &Value) -> String {
    let rows = runs.iter().flat_map(|run| {
        ratios(&run.json, floor).into_iter().map(|ratio| {
            vec![escape(&run.label), escape(ratio.figure), format!("{:.2}", ratio.value), escape(&ratio.of)]
        })
    });
    table(&["run", "figure", "ratio", "to the floor's"], &rows.collect::<Vec<_>>())
}

fn run_list(runs: &[RunResult]) -> String {
    let rows = runs.iter().map(|run| {
        let seconds = run.figure("seconds").unwrap_or(0.0);
        vec![escape(&run.label), escape(&run.what), format!("{seconds:.1}"), escape(&run.json["options"].to_string())]
    });
    table(&["run", "what", "seconds", "options"], &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::report;

    fn runs() -> Vec<RunResult> {
        let labels = ["ottla", "ottla", "a <b>bold</b> & other"];
        let run = |label: &&str| {
            let mut report = report();
            report.label = label.to_string();
            RunResult::parse(report.to_json()).unwrap()
        };
        labels.iter().map(run).collect()
    }

    /// Every tag that is opened is closed, in order.
    fn check_balance(html: &str) {
        let mut open = Vec::new();
        for part in html.split('<').skip(1) {
            let tag = part.split('>').next().unwrap();
            let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
            if tag.starts_with('!') || tag.ends_with('/') || name == "meta" {
                continue;
            }
            match tag.strip_prefix('/') {
                Some(_) => assert_eq!(open.pop(), Some(name), "at {tag}"),
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?} left open");
    }

    #[test]
    fn a_page_is_whole_and_needs_nothing_from_elsewhere() {
        let floor = serde_json::json!({ "kind": crate::bench::floor::KIND, "rows": [] });
        let html = page("Comparison", &runs(), Some(&floor));
        check_balance(&html);
        for foreign in ["http:", "https:", "src=", "href=", "<script", "@import", "url("] {
            assert!(!html.contains(foreign), "{foreign}");
        }
        assert!(html.contains("a &lt;b&gt;bold&lt;/b&gt; &amp; other") && !html.contains("<b>"));
        assert!(html.contains("prefers-color-scheme: dark"));
        // One line a run in each of three charts, and one curve each for p99 and p50 of every label.
        assert_eq!(html.matches("<polyline").count(), 3 * 3 + 2 * 2);
    }

    #[test]
    fn rounds_are_summed_up_as_median_and_range() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0], 0), "2 <small>1–3</small>");
        assert_eq!(spread(vec![1.25], 1), "1.2");
        assert_eq!(spread(vec![], 1), "");
        let html = page("t", &runs(), None);
        assert!(html.contains("<td>ottla</td><td>2</td><td>512 <small>512–512</small></td>"));
    }
}
