//! `ottla simulate`: whole nodes in the simulated world, seed after seed, for as long as one likes.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use super::output::Output;
use crate::base::mutant::Guard;
use crate::base::rng::Rng;
use crate::simulate::minimise::minimise;
use crate::simulate::mutants::{self, Mutant};
use crate::simulate::{Plan, Report, Violation, run};

const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Flags of `ottla simulate`.
#[derive(Debug, Args)]
pub struct RawSimulate {
    /// Where to begin; every history takes the next number. Without it a random one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// How long to go on.
    #[arg(long, default_value_t = 1.0, value_name = "MINUTES")]
    minutes: f64,
    /// How many histories at most.
    #[arg(long, value_name = "COUNT")]
    histories: Option<u64>,
    /// Threads, each with a history of its own. Without it one for each CPU.
    #[arg(long, value_name = "COUNT")]
    jobs: Option<usize>,
    /// Break this rule and look whether it is found; `list` lists them.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Tell what happens in the first history.
    #[arg(long)]
    story: bool,
    /// Histories that shrinking a failure may take; 0 leaves it as it is.
    #[arg(long, default_value_t = 200, value_name = "COUNT")]
    shrink: u32,
    /// How often each branch and fault is to be met; the report names those that were not.
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    mark: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn command(raw: RawSimulate) -> anyhow::Result<()> {
    let mut out = Output::stdout();
    let mutant = match raw.mutant.as_deref() {
        Some("list") => {
            let rows: Vec<Vec<String>> =
                mutants::ALL.iter().map(|mutant| vec![mutant.name.into(), mutant.what.into()]).collect();
            out.table(&["NAME", "BROKEN RULE"], &rows)?;
            return Ok(out.flush()?);
        }
        Some(name) => Some(Mutant::find(name).ok_or_else(|| anyhow::anyhow!("no mutant is named {name}"))?),
        None => None,
    };
    let first = raw.seed.unwrap_or_else(|| Rng::seed_from_entropy() >> 32);
    eprintln!("seed {first}");
    let plan = |seed| mutant.map_or_else(|| Plan::new(seed), |mutant| mutant.plan(seed));
    if raw.story {
        let _guard = Guard::new(mutant.map(|mutant| mutant.name));
        let outcome = run(&plan(first), true);
        outcome.story.lines().try_for_each(|line| writeln!(out, "{line}"))?;
        if let Some(violation) = outcome.violation {
            out.flush()?;
            anyhow::bail!("seed {first}: {violation}");
        }
        return Ok(out.flush()?);
    }
    let jobs = raw.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let (report, failure, took) = run_all(first, &raw, jobs, mutant);
    if let Some((seed, violation)) = failure {
        let _guard = Guard::new(mutant.map(|mutant| mutant.name));
        eprintln!("seed {seed}: {violation}");
        if raw.shrink > 0
            && let Some(minimal) = minimise(&plan(seed), raw.shrink)
        {
            eprintln!("shrunk by {} histories: {}", minimal.run_count, minimal.steps.join(", "));
            minimal.outcome.story.lines().try_for_each(|line| writeln!(out, "{line}"))?;
            writeln!(out, "{:#?}", minimal.plan)?;
            if let Some(violation) = &minimal.outcome.violation {
                writeln!(out, "{violation}")?;
            }
        }
        out.flush()?;
        anyhow::bail!("seed {seed}: {violation}");
    }
    print(&mut out, first, &report, took, jobs, &raw)?;
    Ok(out.flush()?)
}

/// What threads have come to together.
struct Shared {
    report: Report,
    failure: Option<(u64, Violation)>,
    told_at: Instant,
}

/// Seeds from `first` on, until time or histories are used up or one fails.
fn run_all(
    first: u64,
    raw: &RawSimulate,
    jobs: usize,
    mutant: Option<Mutant>,
) -> (Report, Option<(u64, Violation)>, Duration) {
    let started = Instant::now();
    let time_max = Duration::from_secs_f64(raw.minutes.max(0.0) * 60.0);
    let next = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let shared = Mutex::new(Shared { report: Report::default(), failure: None, told_at: started });
    let work = || {
        let _guard = Guard::new(mutant.map(|mutant| mutant.name));
        while !is_over.load(Ordering::Relaxed) && started.elapsed() < time_max {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if raw.histories.is_some_and(|max| number >= max) {
                return;
            }
            let seed = first.wrapping_add(number);
            let plan = mutant.map_or_else(|| Plan::new(seed), |mutant| mutant.plan(seed));
            let outcome = run(&plan, false);
            let mut shared = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let Shared { report, failure, told_at } = &mut *shared;
            report.add(&outcome.told);
            if let Some(violation) = outcome.violation {
                is_over.store(true, Ordering::Relaxed);
                // The first in the order of seeds, so that a run says the same again.
                if failure.as_ref().is_none_or(|(other, _)| seed < *other) {
                    *failure = Some((seed, violation));
                }
            }
            if told_at.elapsed() > PROGRESS_EVERY {
                *told_at = Instant::now();
                eprintln!(
                    "{:>5.0} s  {} histories, {} power cuts, {} kills, {} requests, {} batches acknowledged, {:.1} virtual hours",
                    started.elapsed().as_secs_f64(),
                    report.history_count,
                    report.sum.cut_count,
                    report.sum.kill_count,
                    report.sum.request_count,
                    report.sum.acked_count,
                    report.virtual_hours(),
                );
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let Shared { report, failure, .. } = shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    (report, failure, started.elapsed())
}

fn print(
    out: &mut Output,
    first: u64,
    report: &Report,
    took: Duration,
    jobs: usize,
    raw: &RawSimulate,
) -> anyhow::Result<()> {
    let sum = &report.sum;
    let below = report.below(raw.mark);
    if raw.json {
        out.json(&serde_json::json!({
            "seed": first,
            "histories": report.history_count,
            "jobs": jobs,
            "seconds": took.as_secs_f64(),
            "virtual_hours": report.virtual_hours(),
            "power_cuts": sum.cut_count,
            "kills": sum.kill_count,
            "clean_stops": sum.stop_count,
            "requests": sum.request_count,
            "batches_acknowledged": sum.acked_count,
            "batches_acknowledged_per_power_cut": report.acked_per_cut(),
            "trace": format!("{:016x}", sum.trace),
            "violations": 0,
            "branches": report.branches(),
            "below_the_mark": below.iter().map(|(branch, _)| branch).collect::<Vec<_>>(),
        }))?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> =
        report.branches().into_iter().map(|(branch, count)| vec![branch.to_string(), count.to_string()]).collect();
    out.table(&["BRANCH OR FAULT", "TIMES"], &rows)?;
    writeln!(
        out,
        "\nseeds {first} to {}: no promise broken in {} histories, {:.1} virtual hours, {:.0} s on {jobs} threads:\n\
         {} power cuts, {} kills, {} clean stops, {} requests, {} batches acknowledged ({} between two power cuts)",
        first.wrapping_add(report.history_count).wrapping_sub(1),
        report.history_count,
        report.virtual_hours(),
        took.as_secs_f64(),
        sum.cut_count,
        sum.kill_count,
        sum.stop_count,
        sum.request_count,
        sum.acked_count,
        report.acked_per_cut(),
    )?;
    match below.is_empty() {
        true => writeln!(out, "every branch and fault was met at least {} times", raw.mark)?,
        false => {
            let names: Vec<String> = below.iter().map(|(branch, count)| format!("{branch} ({count})")).collect();
            writeln!(out, "met fewer than {} times: {}", raw.mark, names.join("; "))?;
        }
    }
    Ok(())
}
