//! Building the control plane and Helm from Go modules, pinned by `e2e/tools/go.sum`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::command::run;
use crate::paths::{Paths, repository};
use crate::progress::{Progress, seconds};

/// The programs of the embedded cluster, with Helm.
pub const BUILT: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "coredns",
    "kube-router",
    "helm",
];

/// What only the benchmark needs: the controller beside which Fairway is measured.
pub const BENCHED: &[&str] = &["rollouts-controller"];

/// What only `make test-long PART=volumes` needs: it makes volumes as k3s does.
pub const PROVISIONER: &str = "local-path-provisioner";

/// The S3 server in which tests of backups store, which `make test` alone needs.
pub const S3_SERVER: &str = "versitygw";

const KUBERNETES: &str = "k8s.io/kubernetes";

/// One program: the folder of its go.mod below `e2e/tools`, and its package.
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
            "kube-router" => (
                "kube-router",
                "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router".to_owned(),
            ),
            "rollouts-controller" => (
                "argo-rollouts",
                "github.com/argoproj/argo-rollouts/cmd/rollouts-controller".to_owned(),
            ),
            PROVISIONER => (
                "local-path",
                "github.com/rancher/local-path-provisioner".to_owned(),
            ),
            S3_SERVER => (
                "versitygw",
                "github.com/versity/versitygw/cmd/versitygw".to_owned(),
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
        folder(self.module)
    }

    /// Name that `go build` gives the program: the last element of its package's path that is no version.
    fn built_name(&self) -> &str {
        let mut elements = self.package.rsplit('/');
        let last = elements.next().unwrap_or_default();
        match last.strip_prefix('v').map(|version| version.parse::<u32>()) {
            Some(Ok(_)) => elements.next().unwrap_or(last),
            _ => last,
        }
    }
}

/// Folder of a module below `e2e/tools`.
fn folder(module: &str) -> PathBuf {
    repository().join("e2e/tools").join(module)
}

/// A program that is missing, or was built from other sources.
struct Stale {
    tool: Tool,
    flags: String,
    key: String,
}

/// Builds what is missing or was built from other sources. Returns the names of what it built.
///
/// # Errors
/// When Go is missing or a build fails.
pub fn build(paths: &Paths) -> Result<Vec<&'static str>> {
    build_each(paths, BUILT)
}

/// Builds these of [`BUILT`], [`BENCHED`], [`PROVISIONER`] and [`S3_SERVER`] as [`build`] does. Waits for another process that builds.
///
/// # Errors
/// When Go is missing or a build fails.
pub fn build_each(paths: &Paths, names: &[&'static str]) -> Result<Vec<&'static str>> {
    fs::create_dir_all(paths.bin()).with_context(|| format!("create {}", paths.bin().display()))?;
    let _lock = lock(paths)?;
    let stale = stale(paths, names)?;
    // One call of Go for each module: it links one program while it compiles for the next.
    for module in stale
        .iter()
        .map(|stale| stale.tool.module)
        .collect::<BTreeSet<_>>()
    {
        let programs: Vec<_> = stale.iter().filter(|stale| stale.tool.module == module).collect();
        compile(paths, module, &programs)?;
    }
    Ok(stale.iter().map(|stale| stale.tool.name).collect())
}

/// Held while programs are built. The kernel releases it with the process that held it.
fn lock(paths: &Paths) -> Result<fs::File> {
    let path = paths.build_lock();
    let file = fs::File::create(&path).with_context(|| format!("open {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

fn stale(paths: &Paths, names: &[&'static str]) -> Result<Vec<Stale>> {
    let go = run(Command::new("go").arg("version"))
        .context("Go is needed to build the control plane: https://go.dev/dl")?;
    let version = kubernetes_version(&folder(".").join("go.mod"))?;
    let mut stale = Vec::new();
    for name in names {
        let tool = Tool::named(name);
        let flags = link_flags(&tool, &version);
        let key = key(&tool, &flags, &go)?;
        let built = fs::read_to_string(key_file(paths, name)).is_ok_and(|found| found == key);
        if !built || !paths.binary(name).exists() {
            stale.push(Stale { tool, flags, key });
        }
    }
    Ok(stale)
}

/// File beside a program that holds the hash of what it was built from.
fn key_file(paths: &Paths, name: &str) -> PathBuf {
    paths.binary(&format!("{name}.key"))
}

/// The folder of a module that one of the tools is built from, with all its files.
///
/// # Errors
/// When Go cannot say.
pub fn module_folder(name: &'static str, module: &str) -> Result<PathBuf> {
    let folder = run(go(Tool::named(name).module).args(["list", "-m", "-f", "{{.Dir}}", module]))
        .with_context(|| format!("ask Go for the folder of {module}"))?;
    Ok(PathBuf::from(folder.trim()))
}

/// Builds the programs of one module.
fn compile(paths: &Paths, module: &str, programs: &[&Stale]) -> Result<()> {
    let names: Vec<_> = programs.iter().map(|program| program.tool.name).collect();
    let progress = Progress::start(&format!("build {}", names.join(", ")));
    let packages: Vec<_> = programs
        .iter()
        .map(|program| program.tool.package.as_str())
        .collect();
    let listed = run(go(module).args(["list", "-deps"]).args(&packages)).context("list the packages")?;
    let total = listed.lines().count();
    // Unfinished programs have another folder, so that an interrupted build is never taken for a whole one.
    let unfinished = paths.binary("unfinished");
    fs::create_dir_all(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
    let mut build = go(module);
    build.args(["build", "-v", "-mod=readonly", "-trimpath"]);
    for program in programs {
        build.arg(format!("-ldflags={}={}", program.tool.package, program.flags));
    }
    let mut child = build
        .arg("-o")
        .arg(&unfinished)
        .args(&packages)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start `go build`")?;
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            said.push(line.context("read what `go build` says")?);
            if said.len() % 50 == 0 {
                progress.step(&format!("{} of at most {total} packages", said.len()));
            }
        }
    }
    let status = child.wait().context("wait for `go build`")?;
    if !status.success() {
        let end = said[said.len().saturating_sub(20)..].join("\n");
        bail!(
            "`go build {}` in {} ended with {status}:\n{end}",
            packages.join(" "),
            folder(module).display()
        );
    }
    for program in programs {
        let binary = paths.binary(program.tool.name);
        fs::rename(unfinished.join(program.tool.built_name()), &binary)
            .with_context(|| format!("put {} into its place", binary.display()))?;
        let key_file = key_file(paths, program.tool.name);
        fs::write(&key_file, &program.key).with_context(|| format!("write {}", key_file.display()))?;
    }
    progress.done(&format!("built in {}", seconds(progress.elapsed())));
    Ok(())
}

fn go(module: &str) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(folder(module))
        .env("CGO_ENABLED", "0")
        // A quarter of the compiler's processor time goes into collecting garbage that ends with its process anyway
        // (measured: 37 s instead of 50 s for Kubernetes' API packages). It may use that memory instead.
        .env("GOGC", "400")
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
    let hash = hash.finalize();
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
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

    #[test]
    fn a_program_is_found_under_the_name_that_go_gives_it() {
        for (name, built) in [
            ("etcd", "server"),
            ("kubelet", "kubelet"),
            ("coredns", "coredns"),
            ("helm", "helm"),
            (PROVISIONER, PROVISIONER),
        ] {
            assert_eq!(Tool::named(name).built_name(), built);
        }
    }
}
