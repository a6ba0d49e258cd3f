//! The report for eyes: grouped, aligned, the reason below what is not in order.

use std::fmt::Write;

use super::finding::{Finding, Report, Severity};

/// Where reasons are broken.
const WIDTH: usize = 100;
/// Longer texts do not widen their column.
const COLUMN_MAX: usize = 44;
/// Before a reason: under the name.
const INDENT: &str = "           ";

/// How to show it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// With colours, for a terminal.
    pub colour: bool,
    /// Reasons of what is in order too.
    pub verbose: bool,
}

/// All of it.
pub fn render(report: &Report, style: Style) -> String {
    let mut out = String::new();
    for (name, value) in &report.host {
        let _ = writeln!(out, "{name:<10} {value}");
    }
    let width = |of: fn(&Finding) -> &str| {
        let lengths = report.findings().map(|(_, finding)| of(finding).chars().count());
        lengths.filter(|length| *length <= COLUMN_MAX).max().unwrap_or(0)
    };
    let widths = (width(|finding| &finding.name), width(|finding| &finding.current));
    for section in &report.sections {
        let _ = writeln!(out, "\n{}", paint(style, "1", section.title));
        for finding in &section.findings {
            line(&mut out, finding, widths, style);
        }
    }
    let _ = writeln!(out, "\n{}", summary(report));
    out
}

fn line(out: &mut String, finding: &Finding, widths: (usize, usize), style: Style) {
    let severity = paint(style, colour_of(finding.severity), &format!("{:<7}", finding.severity.name()));
    let name = pad(&finding.name, widths.0);
    let shown = match finding.severity {
        Severity::Ok => finding.current.clone(),
        _ => format!("{}  ->  {}", pad(&finding.current, widths.1), finding.recommended),
    };
    let _ = writeln!(out, "  {severity}  {name}  {}", shown.trim_end());
    if finding.severity != Severity::Ok || style.verbose {
        for part in wrap(&finding.why, WIDTH - INDENT.len()) {
            let _ = writeln!(out, "{INDENT}{}", paint(style, "2", &part));
        }
    }
}

fn summary(report: &Report) -> String {
    let counts = Severity::ALL.map(|severity| format!("{} {}", report.count(severity), severity.name()));
    let mut text = counts.join(", ");
    let unread: Vec<&str> = report
        .findings()
        .filter(|(_, finding)| finding.severity == Severity::Unknown)
        .map(|(_, finding)| finding.name.as_str())
        .collect();
    if !unread.is_empty() {
        text.push_str(&format!(
            "\nnot read: {} (as root, or outside of the container, more is seen)",
            unread.join(", ")
        ));
    }
    if report.findings().any(|(_, finding)| !finding.mend.is_empty()) {
        text.push_str("\n`ottla tune --script` prints what would mend it.");
    }
    text
}

fn colour_of(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "32",
        Severity::Unknown => "35",
        Severity::Note => "36",
        Severity::Warn => "33",
        Severity::Bad => "1;31",
    }
}

fn paint(style: Style, code: &str, text: &str) -> String {
    if style.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.chars().count())))
}

/// Lines of at most `width` characters, broken between words; a longer word stands alone.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Line, Section};
    use super::*;

    fn report() -> Report {
        let findings = vec![
            Line::new("swap", "a reason that nobody needs").ok("none", "none"),
            Line::new("governor", "late ".repeat(40)).warn("powersave", "performance").sysctl("a.b", 1),
            Line::new("fua", "flushes").is(Severity::Unknown, "not read: permission denied", "1"),
        ];
        Report { host: vec![("kernel", "6.12".into())], sections: vec![Section { title: "things", findings }] }
    }

    #[test]
    fn columns_are_aligned_and_reasons_stand_below_what_is_not_in_order() {
        let text = render(&report(), Style::default());
        let column = |word: &str| text.lines().find_map(|line| line.find(word)).unwrap();
        assert_eq!(column("powersave"), column("none"));
        assert!(!text.contains("nobody needs") && !text.contains('\x1b'), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH + 10), "{text}");
        assert!(text.contains("0 bad, 1 warn, 0 note, 1 unknown, 1 ok\nnot read: fua"), "{text}");
        assert!(text.contains("--script"));
    }

    #[test]
    fn colours_and_all_reasons_come_on_request_only() {
        let text = render(&report(), Style { colour: true, verbose: true });
        assert!(text.contains("\x1b[33mwarn") && text.contains("nobody needs"), "{text}");
    }
}
