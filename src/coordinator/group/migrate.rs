//! Groups that go on under the consumer protocol, and ones that come back from there.

use super::classic::Group;
use super::event::{Context, GroupError, GroupState};
use super::groups::Groups;
use super::member::Member;
use super::snapshot::GroupSnapshot;
use super::subscription::CONSUMER;
use crate::base::time::Monotonic;
use crate::coordinator::consumer_group::event::{Migrant, MigrantMember};
use crate::coordinator::consumer_group::member::ClassicProfile;

impl<T> Groups<T> {
    /// What a group would take along to the consumer protocol. Fails if it is not one of consumers, or being deleted.
    pub fn migrant(&self, group_id: &str) -> Result<Migrant, GroupError> {
        let group = self.get(group_id).ok_or(GroupError::GroupIdNotFound)?;
        match group.state {
            GroupState::Dead => return Err(GroupError::CoordinatorNotAvailable),
            GroupState::Empty => {}
            _ if !group.is_of_consumers() => return Err(GroupError::GroupIdNotFound),
            _ => {}
        }
        let members = group.members.iter().map(|(member_id, member)| MigrantMember {
            member_id: member_id.clone(),
            instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            classic: ClassicProfile {
                session_timeout_ms: member.session_timeout_ms,
                protocols: member.protocols.clone(),
            },
            assignment: member.assignment.clone(),
        });
        Ok(Migrant {
            group_id: group_id.into(),
            generation: group.generation,
            protocol: group.protocol.clone(),
            members: members.collect(),
        })
    }

    /// The group is one of the consumer protocol from now on: its members that wait are to join that.
    pub fn emigrate(&mut self, group_id: &str, context: &mut Context<'_, T>) {
        let Some(group) = self.by_id.get(group_id).copied().map(|slot| self.remove(slot)) else { return };
        group.unload(GroupError::RebalanceInProgress, context);
    }

    /// The group is a classic one from now on; what is to be written of it. Its members are to join again.
    pub fn immigrate(&mut self, migrant: Migrant, context: &mut Context<'_, T>) -> GroupSnapshot {
        self.life_count += 1;
        let mut group = Group::new(&migrant.group_id, self.life_count, context.now.wall);
        group.is_recorded = true;
        group.generation = migrant.generation;
        group.protocol_type = Some(CONSUMER.into());
        for member in migrant.members {
            let classic = Member {
                group_instance_id: member.instance_id,
                client_id: member.client_id,
                client_host: member.client_host,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.classic.session_timeout_ms,
                protocols: member.classic.protocols,
                assignment: member.assignment,
                joining: None,
                syncing: None,
                is_new: false,
                owes_sync: false,
                deadline: Monotonic::default(),
            };
            group.insert_member(member.member_id, classic);
        }
        group.protocol = group.select_protocol();
        group.state = GroupState::Stable;
        let snapshot = group.snapshot(None);
        let slot = self.insert(group);
        self.change(slot, |group| {
            group.begin(context);
            if group.state == GroupState::Stable {
                group.prepare_rebalance(context);
            }
        });
        snapshot
    }
}
