//! Who may come in, how much memory receiving may take, and how much answers do.

use crate::base::units::MIB;
use crate::model::limits::FILES_DESCRIPTOR_SHARE;

/// What is more than this is a large frame's.
const LARGE_SIZE_BYTES: usize = MIB;

/// Counts of one shard against its bounds.
#[derive(Debug)]
pub struct Admission {
    connection_count: usize,
    connection_count_max: usize,
    open_count_max: u64,
    receive_bytes: usize,
    receive_bytes_max: usize,
    answer_bytes: u64,
}

impl Admission {
    /// At most `connection_count_max` connections whose receive buffers hold at most `receive_bytes_max` together, while
    /// the process may have `descriptor_count_max` files and connections open.
    pub fn new(connection_count_max: usize, descriptor_count_max: u64, receive_bytes_max: usize) -> Admission {
        let open_count_max = descriptor_count_max - descriptor_count_max / FILES_DESCRIPTOR_SHARE;
        let (connection_count, receive_bytes, answer_bytes) = (0, 0, 0);
        Admission {
            connection_count,
            connection_count_max,
            open_count_max,
            receive_bytes,
            receive_bytes_max,
            answer_bytes,
        }
    }

    /// Counts a new connection, beside which the process has at least `open_count` descriptors open, or says that there
    /// are enough.
    pub fn admit(&mut self, open_count: u32) -> bool {
        let has_descriptor = u64::from(open_count) < self.open_count_max;
        let admitted = has_descriptor && self.connection_count < self.connection_count_max;
        self.connection_count += usize::from(admitted);
        admitted
    }

    /// A counted connection is gone.
    pub fn leave(&mut self) {
        self.connection_count -= 1;
    }

    /// Counts `bytes` of receive memory, or says that it would be too much.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let fits = self.receive_bytes + bytes <= self.receive_bytes_max;
        self.receive_bytes += if fits { bytes } else { 0 };
        fits
    }

    /// Like [`reserve`](Self::reserve) for a buffer that grows to hold a frame. An eighth of the memory stays for the
    /// smallest buffers and small requests, so that large frames which come slowly do not stop everybody else.
    pub fn reserve_for_frame(&mut self, bytes: usize) -> bool {
        let is_large = bytes > LARGE_SIZE_BYTES;
        let max = if is_large { self.frame_bytes_max() } else { self.receive_bytes_max };
        let fits = self.receive_bytes + bytes <= max;
        self.receive_bytes += if fits { bytes } else { 0 };
        fits
    }

    /// `bytes` of counted receive memory were given back.
    pub fn release(&mut self, bytes: usize) {
        self.receive_bytes -= bytes;
    }

    /// Connections now.
    pub fn connection_count(&self) -> usize {
        self.connection_count
    }

    /// Receive memory now.
    pub fn receive_bytes(&self) -> usize {
        self.receive_bytes
    }

    /// The most that receive memory may be.
    #[cfg(any(test, feature = "simulate"))]
    pub fn receive_bytes_max(&self) -> usize {
        self.receive_bytes_max
    }

    /// Answers of a connection that held `before_bytes` of memory of their own now hold `now_bytes`.
    pub fn recount_answers(&mut self, before_bytes: u64, now_bytes: u64) {
        self.answer_bytes = self.answer_bytes - before_bytes + now_bytes;
    }

    /// Memory of their own that answers hold now. What they refer to elsewhere is not counted here.
    pub fn answer_bytes(&self) -> u64 {
        self.answer_bytes
    }

    /// The greatest frame that there can be room for.
    pub fn frame_bytes_max(&self) -> usize {
        self.receive_bytes_max / 8 * 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_admitted_above_its_bound() {
        let mut admission = Admission::new(2, 1000, 100);
        assert_eq!([admission.admit(10), admission.admit(11), admission.admit(12)], [true, true, false]);
        admission.leave();
        assert!(admission.admit(12));
        assert_eq!([admission.reserve(60), admission.reserve(41), admission.reserve(40)], [true, false, true]);
        admission.release(60);
        assert_eq!(admission.receive_bytes(), 40);
    }

    #[test]
    fn connections_leave_descriptors_for_files() {
        let mut admission = Admission::new(1000, 1000, 100);
        assert_eq!([admission.admit(874), admission.admit(875), admission.admit(0)], [true, false, true]);
        let mut admission = Admission::new(1000, u64::MAX, 100);
        assert!(admission.admit(u32::MAX));
    }

    #[test]
    fn large_frames_leave_room_for_small_ones() {
        let mut admission = Admission::new(1, 1000, 16 * MIB);
        assert!(admission.reserve_for_frame(12 * MIB));
        assert!(!admission.reserve_for_frame(3 * MIB));
        assert!(admission.reserve_for_frame(MIB) && admission.reserve_for_frame(MIB) && admission.reserve(MIB));
    }
}
