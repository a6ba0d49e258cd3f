//! A shell script that would mend what was found. It is printed for somebody to read, and never run from here.
//!
//! What is severe stands as commands; what is a choice with a price (a note) stands behind `#?`, to be uncommented by
//! who wants it.

use std::fmt::Write;

use super::finding::{Finding, Mend, Report, Severity};
use super::text::wrap;

/// Where comments are broken.
const WIDTH: usize = 98;

/// The script. It only holds comments if there is nothing to mend.
pub fn render(report: &Report) -> String {
    let mut out = String::from(
        "#!/bin/sh\n\
         # What `ottla tune` would change on this host. Nothing of it was done: read it, then run it as root.\n\
         # Lines behind `#?` are choices with a price; remove the mark of those that you want. What sysctl, echo and\n\
         # mount do here lasts until the next boot; the end of this file says how to keep the sysctls.\n\
         set -u\n",
    );
    let mut kept = Vec::new();
    let mut any = false;
    for (subject, finding) in report.findings().filter(|(_, finding)| !finding.mend.is_empty()) {
        any = true;
        block(&mut out, subject, finding, &mut kept);
    }
    if !any {
        out.push_str("\n# Nothing to mend was found.\n");
    }
    if !kept.is_empty() {
        out.push_str("\n# To keep the sysctls over a reboot (without the marks they are active):\n");
        out.push_str("# cat > /etc/sysctl.d/90-ottla.conf <<'END'\n");
        kept.iter().for_each(|line| out.push_str(&format!("# {line}\n")));
        out.push_str("# END\n");
    }
    out
}

fn block(out: &mut String, subject: &str, finding: &Finding, kept: &mut Vec<String>) {
    let optional = finding.severity <= Severity::Note;
    let mark = if optional { "#? " } else { "" };
    let head = format!(
        "{subject}: {} ({}): {} -> {}",
        finding.name,
        finding.severity.name(),
        finding.current,
        finding.recommended
    );
    out.push('\n');
    comment(out, &head);
    comment(out, &finding.why);
    for mend in &finding.mend {
        match mend {
            Mend::Sysctl(key, value) => {
                let _ = writeln!(out, "{mark}sysctl -w {key}='{value}'");
                kept.push(format!("{}{key} = {value}", if optional { "#? " } else { "" }));
            }
            Mend::Shell(lines) => lines.iter().for_each(|line| {
                let _ = writeln!(out, "{mark}{line}");
            }),
            Mend::ByHand(words) => comment(out, &format!("by hand: {words}")),
        }
    }
}

/// A comment cannot leave its lines, whatever the host's files contain: white space of every kind breaks words.
fn comment(out: &mut String, text: &str) {
    for line in wrap(text, WIDTH) {
        let _ = writeln!(out, "# {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Line, Section};
    use super::*;

    fn report(findings: Vec<Finding>) -> Report {
        Report { host: Vec::new(), sections: vec![Section { title: "things", findings }] }
    }

    fn active(script: &str) -> Vec<&str> {
        script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    }

    #[test]
    fn warnings_are_active_choices_are_marked_and_hand_work_is_a_comment() {
        let script = render(&report(vec![
            Line::new("swap", "why").warn("60", "1").sysctl("vm.swappiness", 1),
            Line::new("thp", "why").note("always", "madvise").shell(["echo madvise > /x"]),
            Line::new("disk", "why").bad("none", "some").by_hand("buy one"),
        ]));
        assert_eq!(active(&script), ["set -u", "sysctl -w vm.swappiness='1'"]);
        assert!(script.contains("\n#? echo madvise > /x\n"), "{script}");
        assert!(script.contains("# by hand: buy one"), "{script}");
        assert!(script.contains("# vm.swappiness = 1"), "{script}");
    }

    #[test]
    fn what_the_host_says_cannot_leave_its_comment() {
        let line = Line::new("x", "why").warn("evil\nrm -rf /\r\nmore", "good").by_hand("a\nb");
        assert_eq!(active(&render(&report(vec![line]))), ["set -u"]);
        assert!(render(&report(vec![])).contains("Nothing to mend"));
    }
}
