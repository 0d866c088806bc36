//! Test programs as cargo compiles them: which there are, the tests they hold, and running one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

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

    /// Runs one test as a process of its own, and ends it after `limit`.
    pub(super) async fn run(
        &self,
        test: &Test,
        variables: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Finished> {
        let program = self.program(test.package, test.target)?;
        let mut command = tokio::process::Command::new(&program.file);
        command
            .args([
                "--exact",
                &test.name,
                "--include-ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .current_dir(&program.folder)
            .envs(variables.iter().copied());
        finish(command, tokio::time::sleep(limit))
            .await
            .with_context(|| format!("run {}", program.file.display()))
    }
}

/// How the process of a test ended, and what it printed.
#[derive(Debug)]
pub(super) struct Finished {
    /// None when it did not end within its limit.
    pub(super) status: Option<ExitStatus>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a command to its end, or kills it at `limit`. What it had printed until then says where it waited.
async fn finish(
    mut command: tokio::process::Command,
    limit: impl Future<Output = ()>,
) -> std::io::Result<Finished> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut pipes = (child.stdout.take(), child.stderr.take());
    let end = async {
        tokio::try_join!(
            read_all(&mut pipes.0, &mut stdout),
            read_all(&mut pipes.1, &mut stderr),
            child.wait(),
        )
    };
    let status = tokio::select! {
        ended = end => Some(ended?.2),
        () = limit => None,
    };
    if status.is_none() {
        child.kill().await?;
        let rest = async {
            tokio::try_join!(
                read_all(&mut pipes.0, &mut stdout),
                read_all(&mut pipes.1, &mut stderr),
            )
        };
        // A process that it started may still hold the pipes; what is in them can be read at once.
        let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
    }
    Ok(Finished {
        status,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

async fn read_all(pipe: &mut Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> std::io::Result<()> {
    if let Some(pipe) = pipe {
        pipe.read_to_end(into).await?;
    }
    Ok(())
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

    fn shell(script: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_test_beyond_its_limit_is_killed_and_its_output_kept() {
        let folder = tempfile::tempdir().unwrap();
        let printed = folder.path().join("printed");
        run(Command::new("mkfifo").arg(&printed)).unwrap();
        let script = format!(
            "echo waiting for a pod; : > {}; exec tail -f /dev/null",
            printed.display()
        );
        let limit = async {
            tokio::fs::read(&printed).await.unwrap();
        };
        let finished = finish(shell(&script), limit).await.unwrap();
        assert_eq!(finished.status, None);
        assert_eq!(finished.stdout, "waiting for a pod\n");
    }

    #[tokio::test]
    async fn a_test_within_its_limit_says_how_it_ended() {
        let script = "echo out; echo err >&2; exit 3";
        let finished = finish(shell(script), std::future::pending()).await.unwrap();
        assert_eq!(finished.status.and_then(|status| status.code()), Some(3));
        assert_eq!(
            (finished.stdout.as_str(), finished.stderr.as_str()),
            ("out\n", "err\n")
        );
    }
}
