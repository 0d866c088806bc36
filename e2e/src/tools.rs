//! Building the control plane and Helm from Go modules, pinned by `e2e/tools/go.sum`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::cluster::Paths;
use crate::cluster::paths::repository;
use crate::command::run;
use crate::progress::{Progress, seconds};

/// What `go build` makes, in the order in which it is built: what shares most packages follows.
pub const BUILT: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "coredns",
    "helm",
];

/// What only the benchmark needs: the controller beside which Fairway is measured.
pub const BENCHED: &[&str] = &["rollouts-controller"];

const KUBERNETES: &str = "k8s.io/kubernetes";

/// One binary: the folder of its go.mod below `e2e/tools`, and its package.
struct Tool {
    name: &'static str,
    module: &'static str,
    package: String,
}

impl Tool {
    fn named(name: &'static str) -> Self {
        let (module, package) = match name {
            "etcd" => (".", "go.etcd.io/etcd/server/v3".to_owned()),
            "coredns" => (".", "./coredns".to_owned()),
            "helm" => ("helm", "helm.sh/helm/v3/cmd/helm".to_owned()),
            "rollouts-controller" => (
                "argo-rollouts",
                "github.com/argoproj/argo-rollouts/cmd/rollouts-controller".to_owned(),
            ),
            _ => (".", format!("{KUBERNETES}/cmd/{name}")),
        };
        Self {
            name,
            module,
            package,
        }
    }

    fn folder(&self) -> PathBuf {
        repository().join("e2e/tools").join(self.module)
    }
}

/// Builds what is missing or was built from other sources. Returns the names of what it built.
///
/// # Errors
/// When Go is missing or a build fails.
pub fn build(paths: &Paths) -> Result<Vec<&'static str>> {
    build_each(paths, BUILT)
}

/// Builds these of [`BUILT`] and [`BENCHED`] as [`build`] does.
///
/// # Errors
/// When Go is missing or a build fails.
pub fn build_each(paths: &Paths, names: &[&'static str]) -> Result<Vec<&'static str>> {
    let go = run(Command::new("go").arg("version"))
        .context("Go is needed to build the control plane: https://go.dev/dl")?;
    fs::create_dir_all(paths.bin()).with_context(|| format!("make {}", paths.bin().display()))?;
    let mut built = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let tool = Tool::named(name);
        let version = kubernetes_version(&repository().join("e2e/tools/go.mod"))?;
        let flags = link_flags(&tool, &version);
        let key = key(&tool, &flags, &go)?;
        let key_file = paths.binary(&format!("{name}.key"));
        let fresh =
            fs::read_to_string(&key_file).is_ok_and(|found| found == key) && paths.binary(name).exists();
        if fresh {
            continue;
        }
        let progress = Progress::start(&format!("build {name} ({} of {})", index + 1, names.len()));
        compile(paths, &tool, &flags, &progress)?;
        fs::write(&key_file, &key).with_context(|| format!("write {}", key_file.display()))?;
        progress.done(&format!("built in {}", seconds(progress.elapsed())));
        built.push(*name);
    }
    Ok(built)
}

/// The folder of a module that one of the tools is built from, with all its files.
///
/// # Errors
/// When Go cannot say.
pub fn module_folder(name: &'static str, module: &str) -> Result<PathBuf> {
    let folder = run(go(&Tool::named(name)).args(["list", "-m", "-f", "{{.Dir}}", module]))
        .with_context(|| format!("ask Go for the folder of {module}"))?;
    Ok(PathBuf::from(folder.trim()))
}

fn compile(paths: &Paths, tool: &Tool, flags: &str, progress: &Progress) -> Result<()> {
    let total = go(tool)
        .args(["list", "-deps", &tool.package])
        .output()
        .context("list the packages")?;
    let total = total
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .count();
    // The unfinished file has another name, so that an interrupted build is never taken for a whole one.
    let unfinished = paths.binary(&format!("{}.unfinished", tool.name));
    let mut child = go(tool)
        .args([
            "build",
            "-v",
            "-mod=readonly",
            "-trimpath",
            "-ldflags",
            flags,
            "-o",
        ])
        .arg(&unfinished)
        .arg(&tool.package)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start `go build`")?;
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            let line = line.context("read what `go build` says")?;
            said.push(line);
            if said.len() % 25 == 0 {
                progress.step(&format!("{} of at most {total} packages", said.len()));
            }
        }
    }
    let status = child.wait().context("wait for `go build`")?;
    if !status.success() {
        let end = said[said.len().saturating_sub(20)..].join("\n");
        bail!(
            "`go build {}` in {} ended with {status}:\n{end}",
            tool.package,
            tool.folder().display()
        );
    }
    let binary = paths.binary(tool.name);
    fs::rename(&unfinished, &binary).with_context(|| format!("put {} into its place", binary.display()))
}

fn go(tool: &Tool) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(tool.folder())
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-buildvcs=false");
    command
}

/// The version must be linked in: Helm and others refuse to parse what Kubernetes reports without it.
fn link_flags(tool: &Tool, version: &str) -> String {
    let mut flags = "-s -w".to_owned();
    if tool.package.starts_with(KUBERNETES) {
        let mut parts = version.trim_start_matches('v').split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        for (name, value) in [
            ("gitVersion", version),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
            ("gitCommit", version),
        ] {
            flags.push_str(&format!(" -X k8s.io/component-base/version.{name}={value}"));
        }
    }
    flags
}

fn kubernetes_version(module: &Path) -> Result<String> {
    let text = fs::read_to_string(module).with_context(|| format!("read {}", module.display()))?;
    text.lines()
        .filter_map(|line| {
            line.trim()
                .trim_start_matches("require ")
                .strip_prefix("k8s.io/kubernetes v")
        })
        .map(|rest| format!("v{}", rest.split_whitespace().next().unwrap_or_default()))
        .next()
        .with_context(|| format!("{} does not require k8s.io/kubernetes", module.display()))
}

/// A hash of all that decides what the binary will be.
fn key(tool: &Tool, flags: &str, go: &str) -> Result<String> {
    let mut hash = Sha256::new();
    for part in [go, flags, &tool.package] {
        hash.update(part);
        hash.update([0]);
    }
    for file in ["go.mod", "go.sum"] {
        let file = tool.folder().join(file);
        hash.update(fs::read(&file).with_context(|| format!("read {}", file.display()))?);
    }
    if let Some(source) = tool.package.strip_prefix("./") {
        hash.update(fs::read(tool.folder().join(source).join("main.go"))?);
    }
    Ok(crate::images::hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linked_version_is_the_one_of_the_module_file() {
        let version = kubernetes_version(&repository().join("e2e/tools/go.mod")).unwrap();
        let flags = link_flags(&Tool::named("kubelet"), &version);
        assert!(flags.contains(&format!("gitVersion={version}")), "{flags}");
        assert!(flags.contains("gitMinor=34"), "{flags}");
        assert_eq!(link_flags(&Tool::named("etcd"), &version), "-s -w");
    }
}
