//! One thread a shard, pinned to a core.

use std::io;
use std::thread::{Builder, JoinHandle};

use crate::model::id::ShardId;

/// The CPUs that this process may use, by its affinity mask.
pub fn usable_cpus() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// Starts a shard's thread, named `shard-<n>`, and pins it to `cpu` if one is given and the system lets it.
pub fn spawn<R: Send + 'static>(
    shard: ShardId,
    cpu: Option<usize>,
    body: impl FnOnce() -> R + Send + 'static,
) -> io::Result<JoinHandle<R>> {
    Builder::new().name(format!("shard-{shard}")).spawn(move || {
        if let Some(id) = cpu
            && !core_affinity::set_for_current(core_affinity::CoreId { id })
        {
            tracing::warn!(%shard, cpu = id, "could not pin the shard's thread; it runs unpinned");
        }
        body()
    })
}
