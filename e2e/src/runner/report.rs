//! What a run of tests says: each test as it ends, the slowest, and those that failed.

use std::fmt;
use std::time::Duration;

use crate::progress::seconds;

/// How many of the slowest tests the table shows.
const SLOWEST: usize = 10;

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its name, with target and modules.
    pub name: String,
    /// From its start to its end, with its namespace created and removed.
    pub took: Duration,
    /// All that it said, when it failed.
    pub failure: Option<String>,
    /// What it measured: lines of its output that begin with `figure: `, without that.
    pub figures: Vec<String>,
}

/// What a test measured, as its output says.
pub(super) fn figures(output: &str) -> Vec<String> {
    let figures = output.lines().filter_map(|line| line.strip_prefix("figure: "));
    figures.map(ToOwned::to_owned).collect()
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Tests, in the order in which they ended.
    pub outcomes: Vec<Outcome>,
    /// The whole run, with compiling.
    pub took: Duration,
}

impl Report {
    /// Number of tests that failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.failure.is_some())
            .count()
    }

    /// Number of tests that passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.outcomes.len() - self.failed()
    }

    /// What the tests measured.
    #[must_use]
    pub fn figures(&self) -> String {
        let figures = self.outcomes.iter().flat_map(|outcome| &outcome.figures);
        figures.map(String::as_str).collect::<Vec<_>>().join("; ")
    }

    fn slowest(&self) -> Vec<&Outcome> {
        let mut outcomes: Vec<_> = self.outcomes.iter().collect();
        outcomes.sort_by(|one, other| other.took.cmp(&one.took).then_with(|| one.name.cmp(&other.name)));
        outcomes.truncate(SLOWEST);
        outcomes
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nThe slowest tests:")?;
        for outcome in self.slowest() {
            writeln!(f, "  {:>7}  {}", seconds(outcome.took), outcome.name)?;
        }
        let failed: Vec<_> = self
            .outcomes
            .iter()
            .filter(|outcome| outcome.failure.is_some())
            .collect();
        if !failed.is_empty() {
            writeln!(f, "\nFailed, with what each said above:")?;
        }
        for outcome in failed {
            writeln!(f, "  {}", outcome.name)?;
        }
        write!(
            f,
            "\n{} passed, {} failed in {}",
            self.passed(),
            self.failed(),
            seconds(self.took)
        )
    }
}

/// Reports on standard error that a test has ended, with its whole output when it failed.
pub(super) fn ended(outcome: &Outcome, number: usize, of: usize) {
    let word = if outcome.failure.is_some() { "FAILED" } else { "ok" };
    eprintln!(
        "[{number:>3} of {of}] {:>7} {word} {}",
        seconds(outcome.took),
        outcome.name
    );
    for figure in &outcome.figures {
        eprintln!("             {figure}");
    }
    if let Some(said) = &outcome.failure {
        eprintln!(
            "======== {}\n{said}\n======== end of {}",
            outcome.name, outcome.name
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seconds: &[u64], failed: &[u64]) -> Report {
        let outcomes = seconds.iter().map(|seconds| Outcome {
            name: format!("stories::takes_{seconds}"),
            took: Duration::from_secs(*seconds),
            failure: failed.contains(seconds).then(|| "said".to_owned()),
            figures: figures("begun\nfigure: 7 steps\n"),
        });
        Report {
            outcomes: outcomes.collect(),
            took: Duration::from_secs(100),
        }
    }

    #[test]
    fn the_table_shows_the_ten_slowest_in_order() {
        let text = report(&[5, 70, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11], &[]).to_string();
        assert!(
            text.contains("The slowest tests:\n    1m10s  stories::takes_70\n    11.0s  stories::takes_11\n"),
            "{text}"
        );
        assert!(text.contains("stories::takes_3\n"), "{text}");
        assert!(!text.contains("stories::takes_2\n"), "{text}");
        assert!(text.ends_with("12 passed, 0 failed in 1m40s"), "{text}");
    }

    #[test]
    fn tests_that_failed_are_named_at_the_end() {
        let report = report(&[5, 6], &[6]);
        let text = report.to_string();
        assert!(text.contains("said above:\n  stories::takes_6\n"), "{text}");
        assert_eq!((report.passed(), report.failed()), (1, 1));
        assert_eq!(report.figures(), "7 steps; 7 steps");
    }
}
