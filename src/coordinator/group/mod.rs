//! Classic consumer groups: who is a member, and how a group comes to an assignment.

pub mod snapshot;
