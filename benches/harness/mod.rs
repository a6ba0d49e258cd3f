//! What the benches share: subjects, which criterion times and `scripts/instructions.sh` counts the instructions of.
//!
//! Instructions repeat to the last digits where times do not. A bench binary lists its subjects with `--subjects` and
//! runs one so many times with `--subject NAME COUNT`: the difference of two counts is the subject alone.

#![allow(dead_code)] // Each bench uses its part.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};

/// One thing that is measured, ready to be run again and again.
pub struct Subject {
    group: &'static str,
    parameter: String,
    throughput: Throughput,
    /// Runs so many times: how long that took.
    run: Box<dyn FnMut(u64) -> Duration>,
}

impl Subject {
    /// One of a group; a run works through so much, and what it gives is not optimised away.
    pub fn new<R>(
        group: &'static str,
        parameter: impl ToString,
        throughput: Throughput,
        mut run: impl FnMut() -> R + 'static,
    ) -> Subject {
        let run = move |count| {
            let started = Instant::now();
            (0..count).for_each(|_| drop(std::hint::black_box(run())));
            started.elapsed()
        };
        Subject::timed(group, parameter, throughput, run)
    }

    /// The same, where not all of a run is what is measured: `run` takes the time itself.
    pub fn timed(
        group: &'static str,
        parameter: impl ToString,
        throughput: Throughput,
        run: impl FnMut(u64) -> Duration + 'static,
    ) -> Subject {
        Subject { group, parameter: parameter.to_string(), throughput, run: Box::new(run) }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.group, self.parameter)
    }
}

/// The bench: what the command line asks for, else criterion's times.
pub fn main(mut subjects: Vec<Subject>) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [flag] if flag == "--subjects" => subjects.iter().for_each(|subject| println!("{}", subject.name())),
        [flag, name, count] if flag == "--subject" => {
            let subject = subjects.iter_mut().find(|subject| subject.name() == *name).expect("one of --subjects");
            (subject.run)(count.parse().expect("a number"));
        }
        _ => time(subjects),
    }
}

fn time(subjects: Vec<Subject>) {
    let mut criterion = Criterion::default().configure_from_args();
    for Subject { group, parameter, throughput, mut run } in subjects {
        let mut group = criterion.benchmark_group(group);
        group.throughput(throughput);
        group.bench_function(BenchmarkId::from_parameter(parameter), |b| b.iter_custom(&mut run));
    }
    criterion.final_summary();
}
