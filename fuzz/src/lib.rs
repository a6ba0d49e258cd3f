//! What the fuzz targets share; `tests/fuzz.rs` of the package above runs the same functions from seeds.

pub mod entrances;
