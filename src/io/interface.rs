//! What a network interface's driver says of it, by the ethtool ioctl: ring sizes, offloads, coalescing.
//!
//! It reads and never sets.

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Commands of the ioctl (linux/ethtool.h).
const GET_COALESCING: u32 = 0x0e;
const GET_RINGS: u32 = 0x10;
const GET_RECEIVE_CHECKSUM: u32 = 0x14;
const GET_SEND_CHECKSUM: u32 = 0x16;
const GET_SCATTER_GATHER: u32 = 0x18;
const GET_SEND_SEGMENTATION: u32 = 0x1e;
const GET_GENERIC_SEGMENTATION: u32 = 0x23;
const GET_GENERIC_RECEIVE: u32 = 0x2b;
/// Words of the largest answer (coalescing: 23), with room.
const ANSWER_WORDS: usize = 32;

/// Descriptors of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSize {
    /// In use.
    pub current: u32,
    /// That the card has.
    pub max: u32,
}

/// What an interface says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceReport {
    /// Receive and send rings; `None` if the driver does not tell.
    pub rings: Option<(RingSize, RingSize)>,
    /// Offloads that the driver tells about, and whether each is on.
    pub offloads: Vec<(&'static str, bool)>,
    /// Microseconds that a received packet may wait for others; `None` if the driver does not tell.
    pub receive_coalescing_us: Option<u32>,
}

/// Asks the driver of `name`. What it does not support is left out; an error means that nothing could be asked.
pub fn interface_report(name: &str) -> io::Result<InterfaceReport> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let rings = supported(ask(&socket, name, GET_RINGS))?;
    let rings = rings
        .map(|words| (RingSize { current: words[5], max: words[1] }, RingSize { current: words[8], max: words[4] }));
    let mut offloads = Vec::new();
    for (label, command) in [
        ("rx checksum", GET_RECEIVE_CHECKSUM),
        ("tx checksum", GET_SEND_CHECKSUM),
        ("scatter-gather", GET_SCATTER_GATHER),
        ("tso", GET_SEND_SEGMENTATION),
        ("gso", GET_GENERIC_SEGMENTATION),
        ("gro", GET_GENERIC_RECEIVE),
    ] {
        if let Some(words) = supported(ask(&socket, name, command))? {
            offloads.push((label, words[1] != 0));
        }
    }
    let coalescing = supported(ask(&socket, name, GET_COALESCING))?;
    Ok(InterfaceReport { rings, offloads, receive_coalescing_us: coalescing.map(|words| words[1]) })
}

/// `None` for what the driver cannot say.
fn supported<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// One question: the command is the answer's first word.
fn ask(socket: &OwnedFd, name: &str, command: u32) -> io::Result<[u32; ANSWER_WORDS]> {
    let mut words = [0u32; ANSWER_WORDS];
    words[0] = command;
    // SAFETY: an all-zero structure is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0: the name must end.
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: request and words, which this function owns, outlive the call; the kernel writes the answer of the
    // command, none of which is larger than ANSWER_WORDS.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_tells_its_offloads_and_a_missing_one_is_an_error() {
        // Every host has lo; it has no rings, but the kernel does segmentation for it.
        let report = interface_report("lo").expect("lo is there");
        assert!(report.rings.is_none());
        assert!(report.offloads.iter().any(|(name, _)| *name == "gso"), "{report:?}");
        assert!(interface_report("no-such-if0").is_err());
        assert!(interface_report("a-name-that-is-too-long").is_err());
    }
}
