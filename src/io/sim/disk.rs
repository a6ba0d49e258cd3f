//! The memory disk: directories, names, files, space.
//!
//! The model of names
//! 1. A directory has the entries that everyone sees and the entries that are durable. Creating, renaming and
//!    removing change the first and are kept in a list, oldest first, until the directory is synced.
//! 2. A sync of a directory makes durable the changes that had happened when it was handed over. A rename between two directories is one change of both: what
//!    came before it in the other directory becomes durable with it.
//! 3. A power cut keeps, in each directory, the changes up to a point and undoes the later ones; a change of two
//!    directories is kept or undone in both. (A journalling file system keeps one order over all directories; this is
//!    weaker, so it finds more.)
//! 4. A sync of a file makes its bytes durable, not its name: a file whose creation is undone is gone, and a removed
//!    file whose removal is undone is back with its bytes.
//! 5. Space is given back when a file has no name any more that anyone sees and nobody has it open.
//!
//! Paths are taken from one root; `.` and the leading `/` mean nothing.
//!
//! It must not know operations, handles or time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::contents::{BLOCK_SIZE_BYTES, Contents, Tear, WriteId};
use super::options::Loss;
use crate::base::rng::Rng;
use crate::io::{DirEntry, OpenOptions, Space};

/// A file or directory, never used twice.
pub(super) type InodeId = u64;

const ROOT: InodeId = 0;

#[derive(Default)]
struct Directory {
    entries: BTreeMap<String, InodeId>,
    durable: BTreeMap<String, InodeId>,
}

enum Node {
    Directory(Directory),
    File(Box<Contents>),
}

struct Inode {
    node: Node,
    /// Entries that everyone sees.
    link_count: u32,
    /// All entries, changes that are not durable, and handles: without any, it is forgotten.
    reference_count: u32,
    /// Handles and operations under way.
    open_count: u32,
    /// Where it was last opened, created or renamed, for fault rules and records.
    path: String,
}

impl Inode {
    fn occupied_count(&self) -> u64 {
        match &self.node {
            Node::File(contents) if self.link_count + self.open_count > 0 => contents.allocated_count(),
            _ => 0,
        }
    }
}

/// One name that points elsewhere from now on.
struct Entry {
    directory: InodeId,
    name: String,
    inode: Option<InodeId>,
}

/// A change of names that happens as a whole.
struct Change {
    sequence: WriteId,
    entries: Vec<Entry>,
}

/// What a power cut is to do with the write that it met.
pub(super) struct Met<'a> {
    pub(super) inode: InodeId,
    pub(super) write: WriteId,
    pub(super) offset: u64,
    pub(super) tear: &'a Tear,
}

/// All files and directories.
pub(super) struct Disk {
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: InodeId,
    next_write: WriteId,
    changes: Vec<Change>,
    occupied_count: u64,
    capacity_count: u64,
}

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or_else(|| error(libc::EINVAL))?),
            Component::ParentDir => return Err(error(libc::EINVAL)),
            _ => {}
        }
    }
    Ok(names)
}

impl Disk {
    /// An empty disk.
    pub(super) fn new(capacity_bytes: u64) -> Disk {
        let mut disk = Disk {
            inodes: BTreeMap::new(),
            next_inode: ROOT,
            next_write: 0,
            changes: Vec::new(),
            occupied_count: 0,
            capacity_count: 0,
        };
        disk.set_capacity(capacity_bytes);
        disk.add(Node::Directory(Directory::default()), "/");
        disk.hold(ROOT);
        disk
    }

    pub(super) fn set_capacity(&mut self, capacity_bytes: u64) {
        self.capacity_count = capacity_bytes / BLOCK_SIZE_BYTES as u64;
    }

    /// Bytes that files occupy.
    pub(super) fn occupied_bytes(&self) -> u64 {
        self.occupied_count * BLOCK_SIZE_BYTES as u64
    }

    /// A number for a change of bytes or names, greater than all before.
    pub(super) fn next_write(&mut self) -> WriteId {
        self.next_write += 1;
        self.next_write
    }

    /// The greatest number given so far.
    pub(super) fn last_write(&self) -> WriteId {
        self.next_write
    }

    // Names

    fn find(&self, path: &Path) -> io::Result<InodeId> {
        let mut at = ROOT;
        for name in names(path)? {
            let directory = self.directory(at)?;
            at = *directory.entries.get(name).ok_or_else(|| error(libc::ENOENT))?;
        }
        Ok(at)
    }

    fn find_parent<'a>(&self, path: &'a Path) -> io::Result<(InodeId, &'a str)> {
        let mut names = names(path)?;
        let name = names.pop().ok_or_else(|| error(libc::EBUSY))?;
        let mut at = ROOT;
        for name in names {
            at = *self.directory(at)?.entries.get(name).ok_or_else(|| error(libc::ENOENT))?;
        }
        self.directory(at)?;
        Ok((at, name))
    }

    fn directory(&self, inode: InodeId) -> io::Result<&Directory> {
        match &self.inodes[&inode].node {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(error(libc::ENOTDIR)),
        }
    }

    /// Opens or creates a file; it stays until [`close`](Self::close), name or not.
    pub(super) fn open(&mut self, path: &Path, options: OpenOptions) -> io::Result<InodeId> {
        let (parent, name) = self.find_parent(path)?;
        let there = self.directory(parent)?.entries.get(name).copied();
        let inode = match there {
            Some(_) if options.create_new => return Err(error(libc::EEXIST)),
            Some(inode) if matches!(self.inodes[&inode].node, Node::Directory(_)) => return Err(error(libc::EISDIR)),
            Some(inode) => inode,
            None if !(options.create || options.create_new) => return Err(error(libc::ENOENT)),
            None => {
                let inode = self.add(Node::File(Box::default()), "");
                self.change(vec![Entry { directory: parent, name: name.into(), inode: Some(inode) }]);
                inode
            }
        };
        self.inode_mut(inode).path = path.display().to_string();
        self.keep_open(inode);
        Ok(inode)
    }

    /// One more handle or operation on `inode`.
    pub(super) fn keep_open(&mut self, inode: InodeId) {
        self.inode_mut(inode).open_count += 1;
        self.hold(inode);
    }

    /// One handle or operation less.
    pub(super) fn close(&mut self, inode: InodeId) {
        self.counted(inode, |disk| disk.inode_mut(inode).open_count -= 1);
        self.release(inode);
    }

    /// Creates a directory; one that is there is success.
    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        if names(path)?.is_empty() {
            return Ok(());
        }
        let (parent, name) = self.find_parent(path)?;
        match self.directory(parent)?.entries.get(name) {
            Some(inode) => self.directory(*inode).map(|_| ()).map_err(|_| error(libc::EEXIST)),
            None => {
                let inode = self.add(Node::Directory(Directory::default()), &path.display().to_string());
                self.change(vec![Entry { directory: parent, name: name.into(), inode: Some(inode) }]);
                Ok(())
            }
        }
    }

    /// Removes a file's name.
    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.find_parent(path)?;
        let inode = *self.directory(parent)?.entries.get(name).ok_or_else(|| error(libc::ENOENT))?;
        if self.directory(inode).is_ok() {
            return Err(error(libc::EISDIR));
        }
        self.change(vec![Entry { directory: parent, name: name.into(), inode: None }]);
        Ok(())
    }

    /// Removes an empty directory.
    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.find_parent(path)?;
        let inode = *self.directory(parent)?.entries.get(name).ok_or_else(|| error(libc::ENOENT))?;
        if !self.directory(inode)?.entries.is_empty() {
            return Err(error(libc::ENOTEMPTY));
        }
        self.change(vec![Entry { directory: parent, name: name.into(), inode: None }]);
        Ok(())
    }

    /// Renames a file or directory.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_parent, from_name) = self.find_parent(from)?;
        let (to_parent, to_name) = self.find_parent(to)?;
        let inode = *self.directory(from_parent)?.entries.get(from_name).ok_or_else(|| error(libc::ENOENT))?;
        if let Some(&replaced) = self.directory(to_parent)?.entries.get(to_name) {
            if replaced == inode {
                return Ok(());
            }
            match (self.directory(inode).is_ok(), self.directory(replaced)) {
                (false, Ok(_)) => return Err(error(libc::EISDIR)),
                (true, Err(_)) => return Err(error(libc::ENOTDIR)),
                (true, Ok(directory)) if !directory.entries.is_empty() => return Err(error(libc::ENOTEMPTY)),
                _ => {}
            }
        }
        if self.directory(inode).is_ok() && names(to)?.starts_with(&names(from)?) {
            return Err(error(libc::EINVAL));
        }
        self.change(vec![
            Entry { directory: from_parent, name: from_name.into(), inode: None },
            Entry { directory: to_parent, name: to_name.into(), inode: Some(inode) },
        ]);
        self.inode_mut(inode).path = to.display().to_string();
        Ok(())
    }

    /// A directory's entries, by name.
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let directory = self.directory(self.find(path)?)?;
        let entry = |(name, inode): (&String, &InodeId)| DirEntry {
            name: name.clone(),
            is_dir: self.directory(*inode).is_ok(),
        };
        Ok(directory.entries.iter().map(entry).collect())
    }

    /// The file at `path`.
    pub(super) fn file_at(&self, path: &Path) -> io::Result<InodeId> {
        let inode = self.find(path)?;
        if self.directory(inode).is_ok() { Err(error(libc::EISDIR)) } else { Ok(inode) }
    }

    /// Makes durable the changes of a directory up to `last`.
    pub(super) fn sync_dir(&mut self, path: &Path, last: WriteId) -> io::Result<()> {
        let inode = self.find(path)?;
        self.directory(inode)?;
        let mut directories = BTreeSet::from([inode]);
        let mut durable = Vec::new();
        for index in (0..self.changes.len()).rev() {
            let Change { sequence, entries } = &self.changes[index];
            if *sequence <= last && entries.iter().any(|entry| directories.contains(&entry.directory)) {
                directories.extend(entries.iter().map(|entry| entry.directory));
                durable.push(self.changes.remove(index));
            }
        }
        for change in durable.into_iter().rev() {
            self.make_durable(change);
        }
        Ok(())
    }

    /// Carries out a change for everyone to see, and remembers it until it is durable.
    fn change(&mut self, entries: Vec<Entry>) {
        let sequence = self.next_write();
        for entry in &entries {
            self.hold(entry.directory);
            if let Some(inode) = entry.inode {
                self.hold(inode);
                self.hold(inode);
                self.counted(inode, |disk| disk.inode_mut(inode).link_count += 1);
            }
            let old = self.entries_mut(entry.directory, |directory| {
                let entries = &mut directory.entries;
                match entry.inode {
                    Some(inode) => entries.insert(entry.name.clone(), inode),
                    None => entries.remove(&entry.name),
                }
            });
            if let Some(old) = old {
                self.counted(old, |disk| disk.inode_mut(old).link_count -= 1);
                self.release(old);
            }
        }
        self.changes.push(Change { sequence, entries });
    }

    fn make_durable(&mut self, change: Change) {
        for entry in change.entries {
            let old = self.entries_mut(entry.directory, |directory| match entry.inode {
                // The reference that the change held is the durable entry's from now on.
                Some(inode) => directory.durable.insert(entry.name, inode),
                None => directory.durable.remove(&entry.name),
            });
            if let Some(old) = old {
                self.release(old);
            }
            self.release(entry.directory);
        }
    }

    fn undo(&mut self, change: Change) {
        for entry in change.entries {
            if let Some(inode) = entry.inode {
                self.release(inode);
            }
            self.release(entry.directory);
        }
    }

    fn entries_mut<T>(&mut self, inode: InodeId, change: impl FnOnce(&mut Directory) -> T) -> T {
        match &mut self.inode_mut(inode).node {
            Node::Directory(directory) => change(directory),
            Node::File(_) => unreachable!("changes name directories"),
        }
    }

    // Bytes

    /// The bytes of a file.
    pub(super) fn contents(&self, inode: InodeId) -> &Contents {
        match &self.inodes[&inode].node {
            Node::File(contents) => contents,
            Node::Directory(_) => unreachable!("directories are not opened"),
        }
    }

    /// Changes the bytes of a file; the space that it occupies is counted again.
    pub(super) fn change_contents<T>(&mut self, inode: InodeId, change: impl FnOnce(&mut Contents) -> T) -> T {
        let mut result = None;
        self.counted(inode, |disk| match &mut disk.inode_mut(inode).node {
            Node::File(contents) => result = Some(change(contents)),
            Node::Directory(_) => unreachable!("directories are not opened"),
        });
        result.expect("it was called")
    }

    /// Bytes from `offset` on that can be written before the disk is full.
    pub(super) fn room(&self, inode: InodeId, offset: u64, length_bytes: u64) -> u64 {
        let free_count = self.capacity_count.saturating_sub(self.occupied_count);
        self.contents(inode).prefix_within(offset, length_bytes, free_count)
    }

    /// How large it is, and how much is left.
    pub(super) fn space(&self) -> Space {
        let block = BLOCK_SIZE_BYTES as u64;
        let free_count = self.capacity_count.saturating_sub(self.occupied_count);
        Space { total_bytes: self.capacity_count * block, usable_bytes: free_count * block }
    }

    /// True if reserving the range would not fit.
    pub(super) fn is_too_large(&self, inode: InodeId, offset: u64, length_bytes: u64) -> bool {
        let free_count = self.capacity_count.saturating_sub(self.occupied_count);
        self.contents(inode).missing_count(offset, length_bytes) > free_count
    }

    /// Where the file was last opened, created or renamed.
    pub(super) fn path(&self, inode: InodeId) -> &str {
        &self.inodes[&inode].path
    }

    // The power cut

    /// Decides what is not durable; see the model above. Every handle must have been closed.
    pub(super) fn lose(&mut self, rng: &mut Rng, loss: Loss, tear_size_bytes: usize, met: Option<Met<'_>>) {
        let mut cut = BTreeSet::new();
        for change in std::mem::take(&mut self.changes) {
            let keep = match loss {
                Loss::Random => rng.chance(2, 3),
                Loss::All => false,
                Loss::Nothing => true,
            };
            if keep && change.entries.iter().all(|entry| !cut.contains(&entry.directory)) {
                self.make_durable(change);
            } else {
                cut.extend(change.entries.iter().map(|entry| entry.directory));
                self.undo(change);
            }
        }
        let directories: Vec<_> = self.inodes.keys().copied().filter(|&inode| self.directory(inode).is_ok()).collect();
        for inode in directories {
            self.forget_entries(inode);
        }
        for (&inode, node) in &mut self.inodes {
            if let Node::File(contents) = &mut node.node {
                let met = met.as_ref().filter(|met| met.inode == inode);
                contents.lose(rng, loss, tear_size_bytes, met.map(|met| (met.write, met.offset, met.tear)));
            }
        }
        self.occupied_count = self.inodes.values().map(Inode::occupied_count).sum();
    }

    /// What everyone sees in a directory becomes what is durable. A directory that is gone by now is left alone.
    fn forget_entries(&mut self, inode: InodeId) {
        if !self.inodes.contains_key(&inode) {
            return;
        }
        let (seen, durable) = self.entries_mut(inode, |directory| {
            (std::mem::replace(&mut directory.entries, directory.durable.clone()), directory.durable.clone())
        });
        for inode in durable.into_values() {
            self.hold(inode);
            self.counted(inode, |disk| disk.inode_mut(inode).link_count += 1);
        }
        for inode in seen.into_values() {
            self.counted(inode, |disk| disk.inode_mut(inode).link_count -= 1);
            self.release(inode);
        }
    }

    // Counting

    fn add(&mut self, node: Node, path: &str) -> InodeId {
        let inode = self.next_inode;
        self.next_inode += 1;
        let path = path.to_string();
        self.inodes.insert(inode, Inode { node, link_count: 0, reference_count: 0, open_count: 0, path });
        inode
    }

    fn inode_mut(&mut self, inode: InodeId) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("references keep inodes")
    }

    fn counted(&mut self, inode: InodeId, change: impl FnOnce(&mut Disk)) {
        self.occupied_count -= self.inodes[&inode].occupied_count();
        change(self);
        self.occupied_count += self.inodes[&inode].occupied_count();
    }

    fn hold(&mut self, inode: InodeId) {
        self.inode_mut(inode).reference_count += 1;
    }

    fn release(&mut self, inode: InodeId) {
        let entry = self.inode_mut(inode);
        entry.reference_count -= 1;
        if entry.reference_count > 0 {
            return;
        }
        let gone = self.inodes.remove(&inode).expect("it was there");
        self.occupied_count -= gone.occupied_count();
        if let Node::Directory(directory) = gone.node {
            for entry in directory.entries.into_values() {
                self.counted(entry, |disk| disk.inode_mut(entry).link_count -= 1);
                self.release(entry);
            }
            for entry in directory.durable.into_values() {
                self.release(entry);
            }
        }
    }
}
