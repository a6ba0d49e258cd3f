//! Operations and their completions.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Buffer, File, Gather, Listener, Slice, Socket};

/// What the asker wants to find again in the completion. Its bits belong to the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// How to open a file. Reading is always allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Writing is allowed.
    pub write: bool,
    /// Create it if it is not there.
    pub create: bool,
    /// Fail if it is there (with `create`).
    pub create_new: bool,
    /// Bypass the page cache (`O_DIRECT`): offsets, lengths and buffers are multiples of the block. Where the file
    /// system cannot (tmpfs before Linux 6.6), the file is opened without.
    pub direct: bool,
}

/// One thing to do. It owns what it needs; see the invariants of [`super`].
#[allow(missing_docs)] // each variant's text names its fields
#[derive(Debug)]
pub enum Op {
    /// Accepts connections until cancelled or failed. Completes with [`Outcome::Accepted`] many times. Accepted
    /// sockets have `TCP_NODELAY` set.
    Accept { listener: Listener },
    /// Connects to a listening socket. Completes with [`Outcome::Connected`].
    Connect { address: SocketAddr },
    /// Receives into `buffer[filled..]`, which must not be empty, as soon as at least one byte is there.
    Recv { socket: Socket, buffer: Buffer, filled: usize },
    /// Sends what is left of `gather`, all of it if the connection and the canceller let it.
    Send { socket: Socket, gather: Gather },
    /// Sends `length_bytes` of `file` from `offset` without copying through user space (splice). May stop short: it
    /// does not wait for a slow receiver longer than the implementation's bound, so it must be asked again from
    /// where it stopped. The file must not be open for direct I/O. Completing with 0 bytes means that the receiver
    /// took nothing within the bound; a file that ends at `offset` is an error (`UnexpectedEof`), since asking again
    /// would change nothing.
    SendFile { socket: Socket, file: File, offset: u64, length_bytes: u32 },
    /// Opens a file.
    Open { path: PathBuf, options: OpenOptions },
    /// Reads `length_bytes` at `offset` into the start of `buffer`; short only at the end of the file.
    Read { file: File, offset: u64, buffer: Buffer, length_bytes: u32 },
    /// Writes all of `slice` at `offset`; a short write is an error. With `sync` it is durable when it completes
    /// (`RWF_DSYNC`).
    Write { file: File, offset: u64, slice: Slice, sync: bool },
    /// Writes zeros (real blocks, not holes or unwritten extents) and makes them and the file's size durable.
    /// `offset` and `length_bytes` are multiples of the block.
    WriteZeros { file: File, offset: u64, length_bytes: u64 },
    /// Reserves blocks for the range and grows the file over it (`fallocate` mode 0); unwritten extents.
    Allocate { file: File, offset: u64, length_bytes: u64 },
    /// Makes written data durable (`fdatasync`).
    Sync { file: File },
    /// Sets the file's length.
    Truncate { file: File, length_bytes: u64 },
    /// The file's length.
    Length { file: File },
    /// Drops the file's clean pages from the page cache (`POSIX_FADV_DONTNEED`).
    DropCache { file: File },
    /// Renames a file or directory, replacing a file of the new name.
    Rename { from: PathBuf, to: PathBuf },
    /// Removes a file.
    Remove { path: PathBuf },
    /// Removes an empty directory.
    RemoveDir { path: PathBuf },
    /// Creates a directory; its parent must exist. An existing directory is success.
    CreateDir { path: PathBuf },
    /// Makes a directory's entries durable (`fsync` on it).
    SyncDir { path: PathBuf },
    /// Lists a directory, in no order. At start-up and for removal only: the ring has no operation for it.
    List { path: PathBuf },
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Its name within the directory. Names that are not UTF-8 are left out.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
}

/// An operation that is done, or one of many of a multishot operation.
#[derive(Debug)]
pub struct Completion {
    /// As given to `submit`.
    pub token: Token,
    /// The operation goes on and will complete again (accept).
    pub more: bool,
    /// What came of it. On an error the operation's buffers have gone back to their pool.
    pub result: io::Result<Outcome>,
}

/// What an operation gives back.
#[allow(missing_docs)] // each variant's text names its fields
#[derive(Debug)]
pub enum Outcome {
    /// Accept: a new connection, its peer, and how many descriptors the process has open at least (0: they do not count).
    Accepted { socket: Socket, peer: SocketAddr, open_count: u32 },
    /// Connect.
    Connected(Socket),
    /// Recv: `buffer[..filled]` is the old part and the `bytes` new ones. 0 new ones: the peer has ended its side.
    Received { buffer: Buffer, filled: usize, bytes: usize },
    /// Send: the pieces come back, advanced by the `bytes` that were sent.
    Sent { gather: Gather, bytes: usize },
    /// SendFile: so many bytes went out.
    SentFile { bytes: usize },
    /// Open.
    Opened(File),
    /// Read: so many bytes are at the start of `buffer`.
    Read { buffer: Buffer, bytes: usize },
    /// Length.
    Length(u64),
    /// List.
    Listed(Vec<DirEntry>),
    /// Everything else.
    Done,
}
