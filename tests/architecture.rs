//! The map in `src/lib.rs` and the code agree: imports point down the list of modules only.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules, each of which may use those before it.
const MODULES: [&str; 17] = [
    "base",
    "telemetry",
    "model",
    "protocol",
    "io",
    "net",
    "storage",
    "coordinator",
    "controller",
    "handlers",
    "shard",
    "simulate",
    "admin",
    "client",
    "bench",
    "tune",
    "cli",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a source directory") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn imports_point_down_the_map_only() {
    // Looks at every `crate::module` in a file of a module, outside of comments.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files {
        let relative = file.strip_prefix(&source).expect("found below it");
        let Some(own) = MODULES.iter().position(|module| relative.starts_with(module)) else { continue };
        for line in fs::read_to_string(&file).expect("a readable source").lines() {
            let code = line.split("//").next().unwrap_or_default();
            for part in code.split("crate::").skip(1) {
                let name: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if let Some(used) = MODULES.iter().position(|module| *module == name) {
                    seen += 1;
                    if used > own {
                        wrong.push(format!("{} uses {name}: {}", relative.display(), line.trim()));
                    }
                }
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were found: the test looks in the wrong place");
    assert!(wrong.is_empty(), "imports that point up the map:\n{}", wrong.join("\n"));
}

#[test]
fn the_ring_is_known_in_one_place_only() {
    // The io-uring crate may appear below src/io/uring and nowhere else.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    for file in files {
        if !file.starts_with(source.join("io/uring")) {
            let text = fs::read_to_string(&file).expect("a readable source");
            assert!(!text.contains("io_uring::"), "{} names the io-uring crate", file.display());
        }
    }
}
