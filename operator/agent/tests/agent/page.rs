//! What the page about restoring by hand says, run as a reader would.

use std::{path::Path, process::Command};

/// The page.
const PAGE: &str = include_str!("../../../../docs/restore-by-hand.md");

/// The shell block of the page that is marked as tested under this name.
fn block(name: &str) -> &'static str {
    let marked = format!("<!-- tested: {name} -->\n```sh\n");
    let (_, rest) = PAGE
        .split_once(&marked)
        .unwrap_or_else(|| panic!("docs/restore-by-hand.md has no block {name}"));
    rest.split("```").next().unwrap_or_default()
}

/// What a shell printed that ran blocks of the page.
pub(crate) struct Printed {
    pub(crate) passed: bool,
    pub(crate) output: String,
}

/// Runs blocks of the page in one shell that stops at the first error.
pub(crate) fn run(blocks: &[&str], folder: &Path, programs: &Path, variables: &[(&str, &str)]) -> Printed {
    let script: String = blocks.iter().map(|name| block(name)).collect();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-e", "-u", "-o", "pipefail", "-c", &script])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", programs.display()))
        .envs(variables.iter().copied())
        .output()
        .expect("a shell");
    let output_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Printed {
        passed: output.status.success(),
        output: output_of(&output.stdout) + &output_of(&output.stderr),
    }
}
