//! A classic group becomes one of the consumer protocol when the first member of that protocol joins it, and a classic
//! one again when the last of them has left (KIP-848, `group.consumer.migration.policy`).

use std::sync::Arc;

use super::change::Change;
use super::embedded;
use super::event::{Migrant, MigrantMember, Settings};
use super::group::ConsumerGroup;
use super::member::{Current, Member, MemberState, Profile};
use super::{Topics, intersects};
use crate::protocol::DecodeError;

impl ConsumerGroup {
    /// A classic group as one of this protocol, and what is to be written of it. Its members keep what they have.
    pub(super) fn upgraded(
        migrant: &Migrant,
        life: u64,
        topics: &dyn Topics,
    ) -> Result<(ConsumerGroup, Vec<Change>), DecodeError> {
        let mut group = ConsumerGroup::new(&migrant.group_id, life);
        (group.epoch, group.target_epoch) = (migrant.generation, migrant.generation);
        for member in &migrant.members {
            let chosen = member.classic.protocols.iter().find(|known| Some(&known.name) == migrant.protocol.as_ref());
            let metadata = chosen.or(member.classic.protocols.first()).map(|known| known.metadata.clone());
            let subscription = embedded::subscription(&metadata.unwrap_or_default(), topics)?;
            let assigned = Arc::new(embedded::assignment(&member.assignment, topics)?);
            // A leader may have given one partition to two: both go on until the first target parts them.
            if group.members.values().any(|other| intersects(&other.current.assigned, &assigned)) {
                tracing::warn!(group = %group.id, member = %member.member_id, "has partitions that another has, too");
            }
            let profile = Profile {
                instance_id: member.instance_id.clone(),
                rack_id: subscription.rack_id,
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                topics: subscription.topics,
                regex: None,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                assignor: None,
                classic: Some(member.classic.clone()),
            };
            let current = Current {
                epoch: migrant.generation,
                previous_epoch: migrant.generation,
                state: MemberState::Stable,
                assigned: assigned.clone(),
                revoking: Arc::default(),
            };
            group.set_target(&member.member_id, assigned);
            group.put(&member.member_id, Member::new(Arc::new(profile), current));
        }
        let mut changes = vec![Change::Classic(None)];
        if !migrant.members.is_empty() {
            changes.extend(group.whole());
        }
        Ok((group, changes))
    }

    /// True if the group is to become a classic one when this member, the last that is not, is gone.
    pub(super) fn downgrades_without(&self, member_id: &str, settings: &Settings) -> bool {
        settings.can_downgrade
            && self.classic_count > 0
            && self.classic_count <= settings.classic_member_count_max
            && self.members.get(member_id).is_some_and(|member| !member.is_classic())
            && self.classic_count == self.members.len() - 1
    }

    /// The classic members with their targets, to go on as a classic group.
    pub(super) fn downgraded(&self, topics: &dyn Topics) -> Migrant {
        let members = self.members.iter().filter_map(|(member_id, member)| {
            let profile = &member.profile;
            let classic = profile.classic.clone()?;
            let version = version_of(profile, topics);
            Some(MigrantMember {
                member_id: member_id.clone(),
                instance_id: profile.instance_id.clone(),
                client_id: profile.client_id.clone(),
                client_host: profile.client_host.clone(),
                rebalance_timeout_ms: profile.rebalance_timeout_ms,
                classic,
                assignment: embedded::put_assignment(&self.target(member_id), version, topics),
            })
        });
        let members = members.collect();
        Migrant { group_id: self.id.clone(), generation: self.epoch, protocol: None, members }
    }
}

/// The version of a classic member's subscription, in which it is told its assignment.
pub(super) fn version_of(profile: &Profile, topics: &dyn Topics) -> i16 {
    let read = profile.classic_metadata().and_then(|metadata| embedded::subscription(metadata, topics).ok());
    read.map_or(0, |subscription| subscription.version)
}
