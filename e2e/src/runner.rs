//! Runs the tests that need a cluster: several at a time, each as a process of its own, phase after phase.
//!
//! libtest runs the tests of one file side by side, but one file after another, and does not say how long each took.

mod libtest;
pub mod parts;
pub mod phases;
pub mod record;
pub mod report;
mod test;

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};

use self::libtest::Compiled;
use self::parts::PARTS;
use self::phases::{Lane, Phase};
use self::report::{Outcome, Report};
use self::test::Test;
pub use self::test::Tests;

/// What a run may choose.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Text that the names of the tests contain; all tests when there is none.
    pub filter: Option<String>,
    /// Most tests at a time, where a lane allows more.
    pub at_once: Option<usize>,
    /// Whether these are the tests of `make test`.
    pub tests: Tests,
    /// Variables that tests find in their environment.
    pub variables: &'static [(&'static str, &'static str)],
}

/// A test and the lane in which it runs.
struct Queued<'a> {
    test: Test,
    phase: usize,
    lane: &'a Lane,
}

/// Runs the tests of these phases, and reports each that ends on standard error.
///
/// # Errors
/// When a test does not compile, or there is none to run. A test that fails is part of the report.
pub async fn run(phases: &[Phase], choice: &Choice) -> Result<Report> {
    let begun = Instant::now();
    let lanes: Vec<_> = phases.iter().flat_map(|phase| phase.lanes).collect();
    let compiled = libtest::compile(lanes.iter().map(|lane| lane.target).collect())?;
    let mut queued = Vec::new();
    for (target, package) in lanes
        .iter()
        .map(|lane| (lane.target, lane.package))
        .collect::<BTreeSet<_>>()
    {
        let tests = compiled.tests(package, target)?;
        for test in tests.iter().filter(|test| test.tests == Tests::Long) {
            ensure!(
                PARTS
                    .iter()
                    .any(|part| queue(part.phases, test.clone()).is_some()),
                "{} is ignored, and no part of `make test-long` runs it; see e2e/src/runner/parts.rs",
                test.full_name()
            );
        }
        let chosen = tests.into_iter().filter(|test| choice.takes(test));
        queued.extend(chosen.filter_map(|test| queue(phases, test)));
    }
    if queued.is_empty() {
        bail!(
            "no test has this in its name: {}",
            choice.filter.as_deref().unwrap_or_default()
        );
    }
    let count = queued.len();
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(count);
    for (index, phase) in phases.iter().enumerate() {
        let of_phase: Vec<_> = queued.iter().filter(|queued| queued.phase == index).collect();
        let lanes = phase.lanes.iter().map(|lane| {
            let tests: Vec<_> = of_phase
                .iter()
                .filter(|queued| std::ptr::eq(queued.lane, lane))
                .map(|queued| run_one(&compiled, &queued.test, choice))
                .collect();
            let at_once = choice
                .at_once
                .map_or(lane.at_once, |most| most.clamp(1, lane.at_once));
            stream::iter(tests).buffer_unordered(at_once)
        });
        let mut ended = stream::select_all(lanes.collect::<Vec<_>>());
        while let Some(outcome) = ended.try_next().await? {
            report::ended(&outcome, outcomes.len() + 1, count);
            outcomes.push(outcome);
        }
    }
    Ok(Report {
        outcomes,
        took: begun.elapsed(),
    })
}

impl Choice {
    fn takes(&self, test: &Test) -> bool {
        let filter = self.filter.as_deref().unwrap_or_default();
        test.tests == self.tests && test.full_name().contains(filter)
    }
}

/// The most specific lane for a test, if any is for it.
fn queue(phases: &[Phase], test: Test) -> Option<Queued<'_>> {
    let lanes = phases
        .iter()
        .enumerate()
        .flat_map(|(phase, of)| of.lanes.iter().map(move |lane| (phase, lane)));
    let (phase, lane) = lanes
        .filter(|(_, lane)| lane.is_for(&test))
        .max_by_key(|(_, lane)| lane.module.len())?;
    Some(Queued { test, phase, lane })
}

async fn run_one(compiled: &Compiled, test: &Test, choice: &Choice) -> Result<Outcome> {
    let begun = Instant::now();
    let output = compiled.run(test, choice.variables).await?;
    let printed = String::from_utf8_lossy(&output.stdout);
    // A test that the program does not know is no failure for it.
    let passed = output.status.success() && printed.contains("ok. 1 passed");
    Ok(Outcome {
        name: test.full_name(),
        took: begun.elapsed(),
        failure: (!passed).then(|| format!("{printed}{}", String::from_utf8_lossy(&output.stderr))),
    })
}
