//! What the members of a group were told, and what contradicts it.
//!
//! A generation whose assignment was given out is durable, so it counts for ever; one that was only told to those who
//! joined counts until the broker's life ends. It knows nothing of how the broker keeps groups.

use std::collections::BTreeMap;

use super::violation::{Checker, Violation, violated};

/// What one group's members know together.
#[derive(Debug, Default)]
pub struct GroupModel {
    /// The greatest generation whose assignment a member was given.
    given_out: i32,
    /// The greatest generation that anybody was told in this life.
    told: i32,
    /// Who leads the generations of this life.
    leaders: BTreeMap<i32, String>,
    /// Which client was given a share in a generation.
    owners: BTreeMap<(i32, u8), u32>,
}

impl GroupModel {
    /// A life of the broker begins: what was not given out may be forgotten.
    pub fn begin_life(&mut self) {
        self.told = self.given_out;
        self.leaders.clear();
    }

    /// No answer to a question that is asked now may be about an earlier generation.
    pub fn floor(&self) -> i32 {
        self.told
    }

    /// A member is told that it takes part in a generation.
    pub fn joined(&mut self, generation: i32, leader: &str, floor: i32, who: &str) -> Result<(), Violation> {
        self.accepted(generation, floor, who)?;
        let known = self.leaders.entry(generation).or_insert_with(|| leader.to_owned());
        if known != leader {
            return violated(Checker::Groups, format!("{who}: {leader} leads generation {generation}, and {known}"));
        }
        Ok(())
    }

    /// A member's question about its generation is answered as if that were the group's.
    pub fn accepted(&mut self, generation: i32, floor: i32, who: &str) -> Result<(), Violation> {
        if generation < floor {
            return violated(
                Checker::Groups,
                format!("{who}: generation {generation} counts, but {floor} was told before it was asked"),
            );
        }
        self.told = self.told.max(generation);
        Ok(())
    }

    /// A member is given its shares of a generation.
    pub fn given(
        &mut self,
        generation: i32,
        client: u32,
        shares: &[u8],
        floor: i32,
        who: &str,
    ) -> Result<(), Violation> {
        self.accepted(generation, floor, who)?;
        self.given_out = self.given_out.max(generation);
        for share in shares {
            let owner = *self.owners.entry((generation, *share)).or_insert(client);
            if owner != client {
                return violated(
                    Checker::Groups,
                    format!("{who}: share {share} of generation {generation} is also member {owner}'s"),
                );
            }
        }
        Ok(())
    }
}

/// What a leader assigns to one member: which generation it is for, to whom it goes, and the shares.
pub fn assignment(generation: i32, member_id: &str, shares: &[u8]) -> Vec<u8> {
    let mut bytes = generation.to_be_bytes().to_vec();
    bytes.extend(super::wire::mix_bytes(0, member_id.as_bytes()).to_be_bytes());
    bytes.extend(shares);
    bytes
}

/// The shares in an assignment, if it is this member's of this generation.
pub fn shares_of<'a>(bytes: &'a [u8], generation: i32, member_id: &str) -> Option<&'a [u8]> {
    let expected = assignment(generation, member_id, &[]);
    bytes.strip_prefix(&expected[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_one_owner_in_a_generation_and_generations_do_not_go_back() {
        // By hand: two members of one generation, then the next one; each broken in one way.
        let mut group = GroupModel::default();
        let bytes = assignment(1, "a", &[1, 2]);
        assert_eq!(shares_of(&bytes, 1, "a"), Some(&[1, 2][..]));
        assert_eq!((shares_of(&bytes, 2, "a"), shares_of(&bytes, 1, "b")), (None, None));
        group.joined(1, "a", 0, "0").expect("the first");
        group.given(1, 0, &[1, 2], group.floor(), "0").expect("the first");
        group.given(1, 1, &[3], group.floor(), "1").expect("another share");
        assert!(group.given(1, 1, &[2], group.floor(), "1").is_err());
        assert!(group.joined(1, "b", 1, "1").is_err());
        group.joined(2, "b", 1, "1").expect("the next");
        assert!(group.accepted(1, group.floor(), "0").is_err());
        group.begin_life();
        assert_eq!(group.floor(), 1, "the second was never given out");
    }
}
