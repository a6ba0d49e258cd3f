//! Who has which partition in a group of the consumer protocol, as its members know, and what contradicts it.
//!
//! A member has a partition from when it is told until it gives it up or could have been given up itself: its session
//! was over. It knows nothing of how the broker keeps groups.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::violation::{Checker, Violation, violated};
use crate::base::coverage;
use crate::base::time::Monotonic;

/// A partition.
pub type Part = (Uuid, i32);

/// See the module.
#[derive(Debug, Default)]
pub struct Owners {
    by_part: BTreeMap<Part, u32>,
    /// Until when the broker must think that a client lives.
    until: BTreeMap<u32, Monotonic>,
}

impl Owners {
    /// The broker must think until then that the client lives.
    pub fn lives(&mut self, client: u32, until: Monotonic) {
        self.until.insert(client, until);
    }

    /// A client was told that it has a partition.
    pub fn given(&mut self, client: u32, part: Part, now: Monotonic, who: &str) -> Result<(), Violation> {
        let before = self.by_part.insert(part, client).filter(|before| *before != client);
        let Some(before) = before else { return Ok(()) };
        match self.until.get(&before).is_some_and(|until| now < *until) {
            true => violated(Checker::Groups, format!("{who} is given {part:?}, which is still consumer {before}'s")),
            false => {
                coverage::hit("consumer: is given what one had whose session is over");
                Ok(())
            }
        }
    }

    /// A client has given a partition up.
    pub fn released(&mut self, client: u32, part: Part) {
        if self.by_part.get(&part) == Some(&client) {
            self.by_part.remove(&part);
        }
    }

    /// A client has given up whatever it had.
    pub fn released_all(&mut self, client: u32) {
        self.by_part.retain(|_, owner| *owner != client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_given_when_its_owner_has_given_it_up_or_is_gone() {
        // By hand: two clients, one partition.
        let mut owners = Owners::default();
        let (one, two) = ((Uuid::from_u128(1), 0), (Uuid::from_u128(1), 1));
        let at = |ms: u64| Monotonic(ms * 1_000_000);
        owners.lives(0, at(100));
        owners.given(0, one, at(10), "0").expect("nobody has it");
        owners.given(0, one, at(20), "0").expect("it has it");
        owners.given(1, two, at(20), "1").expect("another one");
        assert!(owners.given(1, one, at(99), "1").is_err());
        owners.given(0, one, at(100), "0").expect("the other one never told that it lives");
        owners.released(1, one);
        owners.released(0, one);
        owners.given(1, one, at(50), "1").expect("given up");
        owners.released_all(1);
        owners.given(0, two, at(50), "0").expect("given up");
        owners.given(1, two, at(100), "1").expect("its session is over");
    }
}
