//! Test programs as cargo compiles them: which there are, the tests they hold, and running one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::test::{Test, TestSet};
use crate::command::{cargo, run};
use crate::paths::repository;

/// A compiled test target.
#[derive(Clone, Debug)]
struct Program {
    file: PathBuf,
    /// Folder of its package, in which cargo would run it.
    folder: PathBuf,
}

/// Test targets that are compiled, by package and name.
#[derive(Debug)]
pub(super) struct Compiled(BTreeMap<(String, String), Program>);

/// What cargo says of what it has compiled, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    package_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// Compiles test targets of these names. cargo shows its own progress.
pub(super) fn compile(targets: BTreeSet<&str>) -> Result<Compiled> {
    let mut cargo = cargo();
    cargo.current_dir(repository()).args([
        "test",
        "--locked",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    for target in &targets {
        cargo.args(["--test", target]);
    }
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    if !output.status.success() {
        bail!("the tests do not compile: cargo ended with {}", output.status);
    }
    let messages = String::from_utf8(output.stdout).context("read what cargo has compiled")?;
    let programs = messages.lines().filter_map(|line| program(line).transpose());
    Ok(Compiled(programs.collect::<Result<_>>()?))
}

/// The test target that this message of cargo is about, if it is about one.
fn program(line: &str) -> Result<Option<((String, String), Program)>> {
    let message: Message =
        serde_json::from_str(line).with_context(|| format!("read what cargo says: {line}"))?;
    let (Some(target), Some(profile), Some(file), Some(manifest), Some(package)) = (
        message.target,
        message.profile,
        message.executable,
        message.manifest_path,
        message.package_id,
    ) else {
        return Ok(None);
    };
    if message.reason != "compiler-artifact" || !profile.test {
        return Ok(None);
    }
    let folder = manifest
        .parent()
        .context("a manifest lies in a folder")?
        .to_owned();
    Ok(Some((
        (package_name(&package).to_owned(), target.name),
        Program { file, folder },
    )))
}

/// `fairway-e2e` of `path+file:///fairway/e2e#fairway-e2e@0.1.0`, or of `path+file:///fairway-e2e#0.1.0`.
fn package_name(id: &str) -> &str {
    let (path, fragment) = id.split_once('#').unwrap_or((id, id));
    match fragment.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next().unwrap_or(path),
    }
}

impl Compiled {
    fn program(&self, package: &str, target: &str) -> Result<&Program> {
        let key = (package.to_owned(), target.to_owned());
        self.0
            .get(&key)
            .with_context(|| format!("package {package} has no test target {target}"))
    }

    /// TestSet of a target.
    pub(super) fn tests(&self, package: &'static str, target: &'static str) -> Result<Vec<Test>> {
        let program = self.program(package, target)?;
        let names = |which: &[&str]| {
            let listed = run(Command::new(&program.file)
                .args(["--list", "--format", "terse"])
                .args(which))?;
            let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
            anyhow::Ok(names.map(ToOwned::to_owned).collect::<Vec<_>>())
        };
        let long: BTreeSet<_> = names(&["--ignored"])?.into_iter().collect();
        let tests = names(&[])?.into_iter().map(|name| Test {
            package,
            target,
            set: if long.contains(&name) {
                TestSet::Long
            } else {
                TestSet::Usual
            },
            name,
        });
        Ok(tests.collect())
    }

    /// Runs one test as a process of its own.
    pub(super) async fn run(&self, test: &Test, variables: &[(&str, &str)]) -> Result<Output> {
        let program = self.program(test.package, test.target)?;
        tokio::process::Command::new(&program.file)
            .args([
                "--exact",
                &test.name,
                "--include-ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .current_dir(&program.folder)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("start {}", program.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_about_a_test_target_names_its_program() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///f/e2e#fairway-e2e@0.1.0",
            "manifest_path":"/f/e2e/Cargo.toml","target":{"name":"stories"},"profile":{"test":true},
            "executable":"/f/target/debug/deps/stories-1"}"#;
        let ((package, target), program) = program(line).unwrap().unwrap();
        assert_eq!((package.as_str(), target.as_str()), ("fairway-e2e", "stories"));
        assert_eq!(program.folder, PathBuf::from("/f/e2e"));
    }

    #[test]
    fn a_message_about_a_library_names_none() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///f/crds#fairway-crds@0.1.0",
            "manifest_path":"/f/crds/Cargo.toml","target":{"name":"fairway_crds"},"profile":{"test":false},
            "executable":null}"#;
        assert!(program(line).unwrap().is_none());
        assert!(
            program(r#"{"reason":"build-finished","success":true}"#)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_package_is_named_by_its_id() {
        assert_eq!(
            package_name("path+file:///f/plan#fairway-plan@0.1.0"),
            "fairway-plan"
        );
        assert_eq!(package_name("path+file:///f/fairway-plan#0.1.0"), "fairway-plan");
    }
}
