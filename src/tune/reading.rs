//! What was read on the host, or why it was not: files below a root, so that a test can lay out a host of its own.

use std::io;
use std::path::{Path, PathBuf};

/// One fact, its absence, or the reason why it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<T> {
    /// As it is.
    Known(T),
    /// This kernel or machine does not have it.
    Absent,
    /// It may be there and could not be read: why.
    Unread(String),
}

impl<T> Reading<T> {
    /// The fact, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Reading::Known(fact) => Some(fact),
            _ => None,
        }
    }

    /// The same about something made of it.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Reading::Known(fact) => Reading::Known(make(fact)),
            Reading::Absent => Reading::Absent,
            Reading::Unread(why) => Reading::Unread(why),
        }
    }

    /// What `parse` makes of it; `None` is unread.
    pub fn parse<U>(self, parse: impl FnOnce(&T) -> Option<U>) -> Reading<U>
    where
        T: std::fmt::Debug,
    {
        match self {
            Reading::Known(fact) => match parse(&fact) {
                Some(parsed) => Reading::Known(parsed),
                None => Reading::Unread(format!("unexpected contents: {fact:?}")),
            },
            Reading::Absent => Reading::Absent,
            Reading::Unread(why) => Reading::Unread(why),
        }
    }
}

impl<T> From<io::Result<T>> for Reading<T> {
    fn from(result: io::Result<T>) -> Reading<T> {
        match result {
            Ok(fact) => Reading::Known(fact),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Reading::Absent
            }
            Err(error) => Reading::Unread(error.to_string()),
        }
    }
}

/// The directory under which `/proc` and `/sys` are looked for.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The host as this process sees it.
    pub fn host() -> Root {
        Root(PathBuf::from("/"))
    }

    /// A tree that stands for a host.
    #[cfg(test)]
    pub fn at(path: &Path) -> Root {
        Root(path.to_path_buf())
    }

    /// Where `path`, written without its leading slash, is.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// A small file, without the white space around it.
    pub fn text(&self, path: impl AsRef<Path>) -> Reading<String> {
        Reading::from(std::fs::read_to_string(self.path(path))).map(|text| text.trim().to_string())
    }

    /// A file that holds one number.
    pub fn number(&self, path: impl AsRef<Path>) -> Reading<u64> {
        self.text(path).parse(|text| text.parse().ok())
    }

    /// A sysctl by its name with dots, as text.
    pub fn sysctl(&self, name: &str) -> Reading<String> {
        self.text(format!("proc/sys/{}", name.replace('.', "/")))
    }

    /// A sysctl that is one number.
    pub fn sysctl_number(&self, name: &str) -> Reading<u64> {
        self.sysctl(name).parse(|text| text.parse().ok())
    }

    /// A sysctl that is several numbers.
    pub fn sysctl_numbers(&self, name: &str) -> Reading<Vec<u64>> {
        self.sysctl(name).parse(|text| text.split_whitespace().map(|word| word.parse().ok()).collect())
    }

    /// The names in a directory, in order.
    pub fn names(&self, path: impl AsRef<Path>) -> Reading<Vec<String>> {
        let entries = std::fs::read_dir(self.path(path));
        Reading::from(entries).map(|entries| {
            let mut names: Vec<String> =
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        })
    }
}

/// CPUs of a list such as `0-3,8`.
pub fn cpu_list(text: &str) -> Option<Vec<usize>> {
    /// More than any kernel supports: keeps a wrong range from filling memory.
    const CPU_COUNT_MAX: usize = 1 << 16;
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if last < first || last >= CPU_COUNT_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// The word in brackets of `always [madvise] never`.
pub fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_absent_and_what_cannot_be_understood_is_unread() {
        // A tree with one good sysctl and one that is no number.
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/sys/vm")).unwrap();
        std::fs::write(dir.path().join("proc/sys/vm/good"), "7\n").unwrap();
        std::fs::write(dir.path().join("proc/sys/vm/odd"), "seven\n").unwrap();
        let root = Root::at(dir.path());
        assert_eq!(root.sysctl_number("vm.good"), Reading::Known(7));
        assert_eq!(root.sysctl_number("vm.missing"), Reading::Absent);
        assert!(matches!(root.sysctl_number("vm.odd"), Reading::Unread(why) if why.contains("seven")));
        assert_eq!(root.names("proc/sys/vm"), Reading::Known(vec!["good".to_string(), "odd".to_string()]));
    }

    #[test]
    fn lists_of_cpus_and_chosen_words_are_understood() {
        assert_eq!(cpu_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(cpu_list(""), Some(vec![]));
        assert_eq!(cpu_list("3-1"), None);
        assert_eq!(cpu_list("0-4294967295"), None);
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("none"), None);
    }
}
