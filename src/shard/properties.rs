//! `meta.properties`: what a data directory says about itself before anything is recovered.
//!
//! Kafka's own file name and form, `key=value` lines. Node and shard count must be known before the shards that
//! recover the metadata log exist, so they are kept here as well; the metadata log is what counts for everything else.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::model::id::NodeId;

const NAME: &str = "meta.properties";
/// The version of the data directory's layout.
const VERSION: &str = "1";

/// What the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Whose directory it is.
    pub node: NodeId,
    /// How many shards it was last started with.
    pub shard_count: u16,
}

impl Properties {
    /// Reads the file of `data`; `None` if the directory was never started.
    ///
    /// # Errors
    /// If it cannot be read, or is of another version or no such file.
    pub fn read(data: &Path) -> io::Result<Option<Properties>> {
        let text = match fs::read_to_string(data.join(NAME)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{NAME}: {what}"));
        if value("version") != Some(VERSION) {
            return Err(wrong("the directory is not ottla's, or of another version"));
        }
        let number = |key: &str| value(key).and_then(|text| text.trim().parse::<i32>().ok());
        let node = number("node.id").ok_or_else(|| wrong("node.id is missing"))?;
        let shards = number("ottla.shards").and_then(|count| u16::try_from(count).ok());
        let shard_count = shards.filter(|count| *count > 0).ok_or_else(|| wrong("ottla.shards is missing"))?;
        Ok(Some(Properties { node: NodeId(node), shard_count }))
    }

    /// Writes the file, durably and at once or not at all.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        let temporary = data.join(format!("{NAME}.new"));
        let mut file = fs::File::create(&temporary)?;
        writeln!(file, "version={VERSION}\nnode.id={}\nottla.shards={}", self.node, self.shard_count)?;
        file.sync_all()?;
        fs::rename(&temporary, data.join(NAME))?;
        fs::File::open(data)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_nothing_else_is_accepted() {
        let data = tempfile::tempdir().expect("a directory");
        assert_eq!(Properties::read(data.path()).expect("readable"), None);
        let written = Properties { node: NodeId(3), shard_count: 5 };
        written.write(data.path()).expect("writable");
        assert_eq!(Properties::read(data.path()).expect("readable"), Some(written));
        for wrong in ["", "version=0\nnode.id=1\nottla.shards=1", "version=1\nnode.id=1\nottla.shards=0"] {
            fs::write(data.path().join(NAME), wrong).expect("writable");
            assert!(Properties::read(data.path()).is_err(), "{wrong:?}");
        }
    }
}
