//! A queue with a bound.

use std::collections::VecDeque;

/// First in, first out, never more than `capacity` entries.
#[derive(Debug)]
pub struct BoundedQueue<T> {
    entries: VecDeque<T>,
    capacity: usize,
}

impl<T> BoundedQueue<T> {
    /// An empty queue that will hold at most `capacity` entries; memory is taken as it fills.
    pub fn new(capacity: usize) -> Self {
        BoundedQueue { entries: VecDeque::new(), capacity }
    }

    /// Adds `entry` at the end, or gives it back if the queue is full.
    pub fn push(&mut self, entry: T) -> Result<(), T> {
        if self.entries.len() == self.capacity {
            return Err(entry);
        }
        self.entries.push_back(entry);
        Ok(())
    }

    /// Takes the oldest entry.
    pub fn pop(&mut self) -> Option<T> {
        self.entries.pop_front()
    }

    /// The oldest entry, left where it is.
    pub fn front(&self) -> Option<&T> {
        self.entries.front()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True if the next [`push`](Self::push) would be refused.
    pub fn is_full(&self) -> bool {
        self.entries.len() == self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_entry_back() {
        let mut queue = BoundedQueue::new(2);
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Ok(()));
        assert_eq!(queue.push(3), Err(3));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(1), Some(2), None));
    }
}
