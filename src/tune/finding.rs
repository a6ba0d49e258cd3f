//! What the doctor says: one [`Finding`] a line, in sections, with what would mend it.
//!
//! Invariant: a finding is data. Nothing here reads the host, and nothing anywhere carries a [`Mend`] out.

use super::reading::Reading;

/// How severe, from harmless to grave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As recommended.
    Ok,
    /// Could not be read.
    Unknown,
    /// A choice with a price, or something to know when reading measurements.
    Note,
    /// Costs throughput or latency.
    Warn,
    /// The broker cannot run, or what it promises does not hold.
    Bad,
}

impl Severity {
    /// All, from grave to harmless.
    pub const ALL: [Severity; 5] = [Severity::Bad, Severity::Warn, Severity::Note, Severity::Unknown, Severity::Ok];

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Unknown => "unknown",
            Severity::Note => "note",
            Severity::Warn => "warn",
            Severity::Bad => "bad",
        }
    }
}

/// What would mend a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    /// A sysctl: key and value.
    Sysctl(&'static str, String),
    /// Lines of shell, for root.
    Shell(Vec<String>),
    /// Something that no command does: boot parameters, another disk, a file to edit.
    ByHand(String),
}

/// One line of the doctor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// As it is.
    pub current: String,
    /// As it should be.
    pub recommended: String,
    /// Why it should.
    pub why: String,
    /// How severe.
    pub severity: Severity,
    /// What would mend it; none where nothing needs mending or nothing can.
    pub mend: Vec<Mend>,
}

impl Finding {
    /// The same with something that would mend it.
    pub fn mend(mut self, mend: Mend) -> Finding {
        self.mend.push(mend);
        self
    }

    /// The same with a sysctl that would mend it.
    pub fn sysctl(self, key: &'static str, value: impl ToString) -> Finding {
        self.mend(Mend::Sysctl(key, value.to_string()))
    }

    /// The same with shell lines that would mend it.
    pub fn shell<L: Into<String>>(self, lines: impl IntoIterator<Item = L>) -> Finding {
        self.mend(Mend::Shell(lines.into_iter().map(Into::into).collect()))
    }

    /// The same with words on what somebody has to do.
    pub fn by_hand(self, words: impl Into<String>) -> Finding {
        self.mend(Mend::ByHand(words.into()))
    }
}

/// Name and reason of a finding that is being made.
#[derive(Clone, Debug)]
pub struct Line {
    name: String,
    why: String,
}

impl Line {
    /// A line about `name`.
    pub fn new(name: impl Into<String>, why: impl Into<String>) -> Line {
        Line { name: name.into(), why: why.into() }
    }

    /// The finding of this severity.
    pub fn is(self, severity: Severity, current: impl Into<String>, recommended: impl Into<String>) -> Finding {
        Finding {
            name: self.name,
            current: current.into(),
            recommended: recommended.into(),
            why: self.why,
            severity,
            mend: Vec::new(),
        }
    }

    /// As recommended.
    pub fn ok(self, current: impl Into<String>, recommended: impl Into<String>) -> Finding {
        self.is(Severity::Ok, current, recommended)
    }

    /// A choice, or something to know.
    pub fn note(self, current: impl Into<String>, recommended: impl Into<String>) -> Finding {
        self.is(Severity::Note, current, recommended)
    }

    /// It costs.
    pub fn warn(self, current: impl Into<String>, recommended: impl Into<String>) -> Finding {
        self.is(Severity::Warn, current, recommended)
    }

    /// It stops the broker or breaks its promises.
    pub fn bad(self, current: impl Into<String>, recommended: impl Into<String>) -> Finding {
        self.is(Severity::Bad, current, recommended)
    }

    /// `judge`'s finding if the fact is known, `absent` as a harmless one if the host has no such thing, and else the
    /// reason why it could not be read.
    pub fn judge<T>(
        self,
        reading: &Reading<T>,
        absent: &str,
        recommended: &str,
        judge: impl FnOnce(Line, &T) -> Finding,
    ) -> Finding {
        match reading {
            Reading::Known(fact) => judge(self, fact),
            Reading::Absent => self.ok(absent, recommended),
            Reading::Unread(why) => self.is(Severity::Unknown, format!("not read: {why}"), recommended),
        }
    }
}

/// The findings about one subject.
#[derive(Clone, Debug)]
pub struct Section {
    /// The subject.
    pub title: &'static str,
    /// In the order in which they were looked at.
    pub findings: Vec<Finding>,
}

/// Everything that the doctor says.
#[derive(Clone, Debug)]
pub struct Report {
    /// What host this is: name and value.
    pub host: Vec<(&'static str, String)>,
    /// Subject by subject.
    pub sections: Vec<Section>,
}

impl Report {
    /// Every finding with its subject.
    pub fn findings(&self) -> impl Iterator<Item = (&'static str, &Finding)> {
        self.sections.iter().flat_map(|section| section.findings.iter().map(|finding| (section.title, finding)))
    }

    /// How many findings have this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings().filter(|(_, finding)| finding.severity == severity).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_fact_is_harmless_and_an_unread_one_is_said_so() {
        let judge = |line: Line, _: &u64| line.bad("", "");
        let line = || Line::new("x", "because");
        let absent = line().judge(&Reading::Absent, "none here", "any", judge);
        assert_eq!((absent.severity, absent.current.as_str()), (Severity::Ok, "none here"));
        let unread = line().judge(&Reading::Unread("permission denied".into()), "", "any", judge);
        assert_eq!((unread.severity, unread.current.as_str()), (Severity::Unknown, "not read: permission denied"));
        assert_eq!(line().judge(&Reading::Known(1), "", "", judge).severity, Severity::Bad);
    }
}
