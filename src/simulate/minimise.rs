//! From a failing plan to the shortest one that fails in the same way.
//!
//! Greedy: of the smaller plans the first that still breaks the same promise is gone on with, until none does.

use super::history::{Outcome, run};
use super::plan::Plan;

/// What shrinking came to.
pub struct Minimal {
    /// The plan.
    pub plan: Plan,
    /// How it fails, with its story.
    pub outcome: Outcome,
    /// What was taken away, in order.
    pub steps: Vec<&'static str>,
    /// Histories that were run.
    pub run_count: u32,
}

/// Shrinks a plan that fails, running at most `run_count_max` histories. `None` if it does not fail.
pub fn minimise(plan: &Plan, run_count_max: u32) -> Option<Minimal> {
    let checker = run(plan, false).violation?.checker;
    let (mut plan, mut steps, mut run_count) = (plan.clone(), Vec::new(), 1);
    'shrink: loop {
        for (what, smaller) in plan.smaller() {
            if run_count >= run_count_max {
                break 'shrink;
            }
            run_count += 1;
            if run(&smaller, false).violation.is_some_and(|found| found.checker == checker) {
                plan = smaller;
                steps.push(what);
                continue 'shrink;
            }
        }
        break;
    }
    let outcome = run(&plan, true);
    Some(Minimal { plan, outcome, steps, run_count })
}
