//! The world keeps every promise of `Io`.

use std::path::Path;

use super::{SimIo, World, WorldOptions};
use crate::base::units::MIB;

fn with_options(options: WorldOptions, test: impl FnOnce(&mut SimIo, &Path)) {
    let world = World::new(1, options);
    world.create_dir_all("/base").expect("an empty disk");
    test(&mut world.io("shard 0", 256 * MIB), Path::new("/base"));
}

mod calm {
    use super::*;

    fn with_world(test: impl FnOnce(&mut SimIo, &Path)) {
        with_options(WorldOptions::calm(), test);
    }
    crate::io::conformance::conformance_suite!(with_world);
}

mod with_outliers {
    use super::*;

    // Random times; but bytes that were sent together arrive together, as some of the suite expects of a loopback.
    fn with_world(test: impl FnOnce(&mut SimIo, &Path)) {
        let whole = WorldOptions { short_receive_one_in: 0, ..WorldOptions::default() };
        with_options(whole, test);
    }
    crate::io::conformance::conformance_suite!(with_world);
}
