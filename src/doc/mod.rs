//! Pages that belong to the code and are read with its documentation.

#[doc = include_str!("on_disk_format.md")]
pub mod on_disk_format {}

#[doc = include_str!("testing.md")]
pub mod testing {}
