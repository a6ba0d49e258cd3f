//! `ottla tune` as a user runs it: the process, its output, its exit code.

use std::process::{Command, Output};

use serde_json::Value;

fn tune(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_ottla")).arg("tune").args(args).output().expect("ottla starts");
    assert!(output.status.success(), "{args:?}: {output:?}");
    output
}

#[test]
fn the_doctor_judges_every_subject_and_leaves_the_host_alone() {
    // On any host: a document with all subjects, each finding complete, and nothing left in the directory.
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().to_str().unwrap();
    let document: Value = serde_json::from_slice(&tune(&["--json", "--data-dir", data_dir]).stdout).unwrap();
    let findings = document["findings"].as_array().unwrap();
    for subject in ["kernel", "limits", "control groups", "processors", "memory", "disk", "network"] {
        assert!(findings.iter().any(|finding| finding["subject"] == subject), "nothing about {subject}");
    }
    for finding in findings {
        for key in ["name", "severity", "current", "recommended", "why"] {
            assert!(finding[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {finding}");
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    tune(&["--data-dir", dir.path().join("later").to_str().unwrap()]);
    assert!(!dir.path().join("later").exists());
}

#[test]
fn the_script_is_shell() {
    // The shell reads it without running it (-n), whatever this host's findings are.
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("mend.sh");
    std::fs::write(&script, tune(&["--script", "--data-dir", dir.path().to_str().unwrap()]).stdout).unwrap();
    let checked = Command::new("sh").arg("-n").arg(&script).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}
