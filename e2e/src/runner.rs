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
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::{Stream, StreamExt, TryStreamExt, stream};

use self::libtest::Compiled;
use self::parts::PARTS;
use self::phases::{Lane, Phase, TESTS};
use self::report::{Outcome, Report};
use self::test::Test;
pub use self::test::TestSet;
use crate::progress::seconds;

/// Longest that a test of `make test` may take. The slowest take two minutes where the machine is idle.
pub const TEST_LIMIT: Duration = Duration::from_mins(10);

/// Which tests to run, and how.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Text that the names of the tests contain; all tests when there is none.
    pub filter: Option<String>,
    /// Most tests at a time, where a lane allows more.
    pub at_once: Option<usize>,
    /// Which set of tests to run.
    pub set: TestSet,
    /// Variables that tests find in their environment.
    pub variables: &'static [(&'static str, &'static str)],
    /// Longest that a test may take. One that waits for what never comes would otherwise keep all others from being reported.
    pub limit: Duration,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            filter: None,
            at_once: None,
            set: TestSet::default(),
            variables: &[],
            limit: TEST_LIMIT,
        }
    }
}

/// A lane among those of some phases, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    phase: usize,
    lane: usize,
}

/// A test and the lane in which it runs.
struct Queued {
    test: Test,
    place: Place,
}

/// Runs the tests of these phases, and reports each that ends on standard error.
///
/// # Errors
/// When a test does not compile, there is none to run, or one has no lane. A test that fails is part of the report.
pub async fn run(phases: &[Phase], selection: &Selection) -> Result<Report> {
    let begun = Instant::now();
    let lanes: Vec<_> = phases.iter().flat_map(|phase| phase.lanes).collect();
    let compiled = libtest::compile(lanes.iter().map(|lane| lane.target).collect())?;
    let targets: BTreeSet<_> = lanes.iter().map(|lane| (lane.package, lane.target)).collect();
    let mut tests = Vec::new();
    for (package, target) in targets {
        tests.extend(compiled.tests(package, target)?);
    }
    ensure_each_has_a_place(&tests)?;
    let queued = select(phases, tests, selection);
    ensure!(!queued.is_empty(), "{}", nothing_to_run(selection));
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(queued.len());
    for (index, phase) in phases.iter().enumerate() {
        let lanes = phase.lanes.iter().enumerate().map(|(lane, of)| {
            let place = Place { phase: index, lane };
            run_lane(&compiled, of, tests_at(&queued, place), selection)
        });
        let mut ended = stream::select_all(lanes.collect::<Vec<_>>());
        while let Some(outcome) = ended.try_next().await? {
            report::ended(&outcome, outcomes.len() + 1, queued.len());
            outcomes.push(outcome);
        }
    }
    Ok(Report {
        outcomes,
        took: begun.elapsed(),
    })
}

/// The tests of a lane, as many at a time as it allows.
fn run_lane<'a>(
    compiled: &'a Compiled,
    lane: &Lane,
    tests: Vec<&'a Test>,
    selection: &'a Selection,
) -> impl Stream<Item = Result<Outcome>> + 'a {
    let at_once = selection
        .at_once
        .map_or(lane.at_once, |most| most.clamp(1, lane.at_once));
    let runs: Vec<_> = tests
        .into_iter()
        .map(|test| run_one(compiled, test, selection))
        .collect();
    stream::iter(runs).buffer_unordered(at_once)
}

fn tests_at(queued: &[Queued], place: Place) -> Vec<&Test> {
    queued
        .iter()
        .filter(|queued| queued.place == place)
        .map(|queued| &queued.test)
        .collect()
}

/// The tests of a selection that have a lane in these phases.
fn select(phases: &[Phase], tests: Vec<Test>, selection: &Selection) -> Vec<Queued> {
    tests
        .into_iter()
        .filter(|test| selection.takes(test))
        .filter_map(|test| place(phases, &test).map(|place| Queued { test, place }))
        .collect()
}

/// Fails on a test that nothing would ever run.
fn ensure_each_has_a_place(tests: &[Test]) -> Result<()> {
    for test in tests {
        let name = test.full_name();
        let has_a_part = PARTS
            .iter()
            .any(|part| part.set == test.set && place(part.phases, test).is_some());
        match test.set {
            TestSet::Usual => ensure!(
                has_a_part || place(TESTS, test).is_some() || !test.is_of_e2e(),
                "{name} has no lane; add one in e2e/src/runner/phases.rs"
            ),
            TestSet::Long => ensure!(
                has_a_part,
                "{name} is ignored, and no part of `make test-long` runs it; see e2e/src/runner/parts.rs"
            ),
        }
    }
    Ok(())
}

fn nothing_to_run(selection: &Selection) -> String {
    match &selection.filter {
        Some(filter) => format!(
            "no test of this run has {filter:?} in its name; `cargo test -p fairway-e2e -- --list` lists them"
        ),
        None => "there is no test to run in these phases".to_owned(),
    }
}

impl Selection {
    fn takes(&self, test: &Test) -> bool {
        let filter = self.filter.as_deref().unwrap_or_default();
        test.set == self.set && test.full_name().contains(filter)
    }
}

/// The most specific lane for a test, if any is for it.
fn place(phases: &[Phase], test: &Test) -> Option<Place> {
    let lanes = phases.iter().enumerate().flat_map(|(phase, of)| {
        let lanes = of.lanes.iter().enumerate();
        lanes.map(move |(index, lane)| (Place { phase, lane: index }, lane))
    });
    let (place, _) = lanes
        .filter(|(_, lane)| lane.is_for(test))
        .max_by_key(|(_, lane)| lane.module.len())?;
    Some(place)
}

async fn run_one(compiled: &Compiled, test: &Test, selection: &Selection) -> Result<Outcome> {
    let begun = Instant::now();
    let finished = compiled.run(test, selection.variables, selection.limit).await?;
    // libtest exits with 0 when the name matches nothing, and its JSON output is unstable.
    let passed =
        finished.status.is_some_and(|status| status.success()) && finished.stdout.contains("ok. 1 passed");
    let limit = match finished.status {
        Some(_) => String::new(),
        None => format!("\nkilled after {}: it did not end\n", seconds(selection.limit)),
    };
    Ok(Outcome {
        name: test.full_name(),
        took: begun.elapsed(),
        figures: report::figures(&finished.stdout),
        failure: (!passed).then(|| format!("{}{}{limit}", finished.stdout, finished.stderr)),
    })
}
