//! The simulation itself: it replays, it finds nothing wrong, it shrinks.

use super::*;

#[test]
fn a_seed_gives_one_history() {
    for seed in 0..3 {
        let plan = Plan { life_count: 4, ..Plan::new(seed) };
        let (first, second) = (run(&plan, false), run(&plan, true));
        assert_eq!(first.told.trace, second.told.trace, "seed {seed}");
        assert_eq!(first.told.acked_count, second.told.acked_count, "seed {seed}");
    }
}

#[test]
fn no_promise_is_broken() {
    let number =
        |name: &str, otherwise: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let (first, count) = (number("OTTLA_SIM_FIRST", 0), number("OTTLA_SIM_SEEDS", 20));
    for seed in first..first + count {
        if let Some(violation) = run(&Plan::new(seed), false).violation {
            tell(&Plan::new(seed));
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn every_broken_rule_is_found() {
    find_mutants(|mutant| !mutant.is_rare);
}

#[test]
#[ignore = "takes a while: the rules that few histories meet"]
fn every_rarely_met_broken_rule_is_found() {
    find_mutants(|mutant| mutant.is_rare);
}

/// Prints what happens in a history.
fn tell(plan: &Plan) {
    run(plan, true).story.lines().for_each(|line| println!("{line}"));
}

/// Seed after seed with the rule broken, until a checker complains; the seeds are bounded. The same seeds pass with the
/// rule kept, or the complaint would prove nothing. `OTTLA_SIM_MUTANT` names one to look at.
fn find_mutants(is_wanted: impl Fn(&mutants::Mutant) -> bool) {
    let only = std::env::var("OTTLA_SIM_MUTANT").ok();
    let (mut survivors, mut found_by) = (Vec::new(), std::collections::BTreeSet::new());
    for mutant in mutants::ALL.iter().filter(|mutant| is_wanted(mutant)) {
        if only.as_ref().is_some_and(|only| only != mutant.name) {
            continue;
        }
        let started = std::time::Instant::now();
        let found = (0..mutant.seed_count_max).find_map(|seed| Some((seed, mutant.run(seed).violation?)));
        match found {
            None => survivors.push(mutant.name),
            Some((seed, violation)) => {
                println!("{}: seed {seed}, {:?}: {violation}", mutant.name, started.elapsed());
                found_by.insert(violation.checker);
                if let Some(kept) = run(&mutant.plan(seed), false).violation {
                    tell(&mutant.plan(seed));
                    panic!("seed {seed} of {} fails with the rule kept: {kept}", mutant.name);
                }
            }
        }
    }
    println!("found by {found_by:?}");
    assert!(survivors.is_empty(), "these lived: {survivors:?}");
}

#[test]
fn histories_go_through_every_part_of_compaction() {
    // With a compacted topic, crashes and little else; some histories together meet all of it.
    let mut missing = vec![
        "compaction: a segment is replaced",
        "compaction: several segments become one",
        "compaction: the map is full",
        "recovery: finishes a swap",
        "compacted topic compared",
        "compacted topic deleted",
        "tombstone is gone",
    ];
    let mutant = mutants::Mutant::find("swap_without_name").expect("it is listed");
    for seed in 0..60 {
        let outcome = run(&mutant.plan(seed), false);
        assert_eq!(outcome.violation, None, "seed {seed}");
        missing.retain(|branch| !outcome.told.branches.contains_key(branch));
        if missing.is_empty() {
            println!("all met by seed {seed}");
            return;
        }
    }
    panic!("never met: {missing:?}");
}

#[test]
fn a_failing_plan_shrinks_and_fails_in_the_same_way() {
    // A mutant that every history meets; what is left of the plan is next to nothing.
    let _guard = crate::base::mutant::Guard::new(Some("ack_before_write"));
    let plan = Plan { life_count: 4, ..Plan::new(0) };
    let checker = run(&plan, false).violation.expect("it fails").checker;
    let minimal = minimise::minimise(&plan, 40).expect("it fails");
    assert_eq!(minimal.outcome.violation.expect("it still fails").checker, checker);
    assert!(minimal.plan.goal_max < plan.goal_max && minimal.plan.life_count <= plan.life_count, "{:?}", minimal.plan);
    assert!(minimal.outcome.story.lines().count() > 3, "there is a story");
}

#[test]
fn every_branch_that_is_listed_exists() {
    // The list is what a report shows also where it is zero: a name that nothing counts would be zero for ever, and
    // one that is missing would not be missed.
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut text = String::new();
    for file in [
        "storage/roll.rs",
        "storage/prepare.rs",
        "storage/commit.rs",
        "storage/recovery/checkpoint.rs",
        "storage/recovery/end.rs",
        "storage/recovery/directory.rs",
        "storage/recovery/mod.rs",
        "storage/recovery/segments.rs",
        "storage/rewriter.rs",
        "storage/journal/laps.rs",
        "storage/journal/replay.rs",
        "storage/compaction/swap.rs",
        "storage/compaction/task.rs",
        "handlers/produce.rs",
        "handlers/fetch.rs",
        "handlers/fetch_waits.rs",
        "handlers/apply.rs",
        "shard/metadata_log.rs",
        "io/sim/faults.rs",
        "io/sim/state.rs",
        "simulate/admin.rs",
        "simulate/committer.rs",
        "simulate/member.rs",
        "simulate/consumer.rs",
        "simulate/owners.rs",
        "simulate/history.rs",
        "simulate/chaos.rs",
        "simulate/compacted.rs",
        "simulate/transactor/mod.rs",
        "simulate/transactor/producer.rs",
    ] {
        text += &std::fs::read_to_string(source.join(file)).expect("a source");
    }
    for branch in report::BRANCHES {
        assert!(text.contains(&format!("\"{branch}\"")), "{branch}");
    }
    for (at, call) in text.match_indices("coverage::hit(\"") {
        let name = text[at + call.len()..].split('"').next().expect("a name");
        assert!(report::BRANCHES.contains(&name), "{name} is not listed");
    }
}
