//! Running the fuzz targets of `operator/fuzz`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use crate::command::run;
use crate::paths::repository;

/// How long each target is run by `make test-long PART=fuzz`.
pub const TIME: Duration = Duration::from_secs(120);
/// Longest input. Objects are the largest; what grows beyond it is proven by unit tests.
const INPUT_BYTES: usize = 64 * 1024;
/// More memory is a failure. The fuzzer itself and its inputs take a part of it.
const MEMORY_MIB: usize = 1024;
/// An input that takes longer is a failure.
const SECONDS_OF_AN_INPUT: usize = 10;

/// Runs a target for so long, from its seeds and from what earlier runs have found.
///
/// # Errors
/// When it does not compile, or an input fails it; the error names the file that holds the input.
pub fn run_target(name: &str, time: Duration) -> Result<()> {
    let built = target_directory().join("fuzz");
    let corpus = built.join("corpus").join(name);
    let seeds = built.join("seeds").join(name);
    for folder in [&corpus, &seeds] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    for (number, seed) in seeds_of(name)?.iter().enumerate() {
        let file = seeds.join(number.to_string());
        fs::write(&file, seed).with_context(|| format!("write {}", file.display()))?;
    }
    let mut fuzz = Command::new(repository().join("scripts/cargo-tool"));
    fuzz.args([
        "fuzz",
        "run",
        "--fuzz-dir",
        "operator/fuzz",
        "--sanitizer",
        "none",
    ])
    .arg("--target-dir")
    .arg(built)
    .arg(name)
    .args([corpus, seeds])
    .arg("--")
    .arg(format!("-max_total_time={}", time.as_secs()))
    .arg(format!("-max_len={INPUT_BYTES}"))
    .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
    .arg(format!("-timeout={SECONDS_OF_AN_INPUT}"))
    .arg("-print_final_stats=1");
    run(&mut fuzz)?;
    Ok(())
}

/// Where cargo puts what it builds.
fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => repository().join(folder),
        None => repository().join("target"),
    }
}

/// The seeds of a target: the lines of a file, in which `\n` is a line break. A target without one begins with nothing.
fn seeds_of(name: &str) -> Result<Vec<Vec<u8>>> {
    if name == "certificate" {
        return certificates();
    }
    let file = repository().join(format!("operator/fuzz/seeds/{name}.txt"));
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let lines = text.lines();
    Ok(lines.map(|line| line.replace("\\n", "\n").into_bytes()).collect())
}

/// Certificates, each behind a signature of four bytes and its length.
fn certificates() -> Result<Vec<Vec<u8>>> {
    let algorithms = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
    let certificate = |algorithm| {
        let key = KeyPair::generate_for(algorithm)?;
        let certificate = CertificateParams::new(["db".to_owned()])?.self_signed(&key)?;
        Ok([&[4, 0, 1, 2, 3], certificate.der().as_ref()].concat())
    };
    algorithms.into_iter().map(certificate).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_target_has_a_test() {
        let read = |file: &str| fs::read_to_string(repository().join(file)).unwrap();
        let targets = read("operator/fuzz/Cargo.toml");
        let targets = targets.split("[[bin]]").skip(1);
        let targets: BTreeSet<_> = targets
            .map(|target| target.split('"').nth(1).unwrap_or_default().to_owned())
            .collect();
        let tests = read("e2e/tests/fuzz.rs");
        let (_, tests) = tests.split_once("targets! {").unwrap();
        let (tests, _) = tests.split_once('}').unwrap();
        let tests = tests.split(',').map(|name| name.trim().to_owned());
        assert_eq!(targets, tests.filter(|name| !name.is_empty()).collect());
    }
}
