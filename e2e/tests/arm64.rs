//! The binaries and the image for arm64, built on this machine, and run by an emulator of user programs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fairway_e2e::command::{cargo, run};
use fairway_e2e::images;
use fairway_e2e::paths::{Paths, repository};

/// The kernel's table of interpreters: <https://docs.kernel.org/admin-guide/binfmt-misc.html>.
const INTERPRETERS: &str = "/proc/sys/fs/binfmt_misc";
const NAME: &str = "fairway-arm64";
/// The head of a program for arm64, and which of its bits count. `F` opens the emulator once, so that programs in other
/// mount namespaces find it too.
const EMULATOR: &str = concat!(
    r":M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff",
    ":/usr/bin/qemu-aarch64-static:F"
);

/// Tests of the agent that cannot be run so.
const NATIVE_ONLY: &[&str] = &[
    // They wait until the agent handles SIGTERM: an emulator handles every signal from its start.
    "guard::passing_health_is_success_and_reported_after_a_restart",
    "guard::an_application_out_of_time_is_judged_when_it_is_gone",
    "migrate::a_pod_that_is_stopped_while_it_waits_starts_nothing",
    // It stops the process that it has started, which is not the agent here.
    "backup::a_late_pod_does_not_touch_its_successors_backup",
    // It looks for a process by its ID, which is one of the agent's namespace here.
    "migrate::nothing_that_the_migration_started_outlives_it",
    // It starts the agent as a user, who may not create a namespace.
    "migrate::s17_a_migration_cannot_read_the_agents_variables",
];

/// Lets the kernel run programs for arm64 until it is dropped.
struct Emulated;

impl Emulated {
    fn start() -> Result<Self> {
        let register = Path::new(INTERPRETERS).join("register");
        if !register.exists() {
            run(Command::new("mount").args(["-t", "binfmt_misc", "none", INTERPRETERS]))?;
        }
        // One that an interrupted test has left.
        if Path::new(INTERPRETERS).join(NAME).exists() {
            drop(Self);
        }
        fs::write(&register, format!(":{NAME}{EMULATOR}"))
            .with_context(|| format!("register an emulator at {}", register.display()))?;
        Ok(Self)
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        let _unregistered = fs::write(Path::new(INTERPRETERS).join(NAME), "-1");
    }
}

#[test]
#[ignore = "make test-long PART=arm64"]
fn arm64_binaries_do_what_those_of_x86_64_do() -> Result<()> {
    let built = run(&mut Command::new(repository().join("e2e/tools/arm64")))?;
    let folder = Path::new(built.trim());
    ensure!(architecture_of_image(folder)? == "arm64");
    let _emulated = Emulated::start()?;
    for name in ["fairway", "fairway-agent"] {
        let version = run(Command::new(folder.join(name)).arg("--version"))?;
        ensure!(version.starts_with(&format!("{name} ")), "{version}");
    }

    // The agent's tests against a real PostgreSQL, which is not emulated. An emulated agent needs a processor, and in some
    // tests it has a second.
    let mut tests = cargo();
    tests
        .args([
            "test",
            "--locked",
            "--package",
            "fairway-agent",
            "--test",
            "agent",
            "--",
        ])
        .arg("--test-threads=2");
    for name in NATIVE_ONLY {
        tests.args(["--skip", name]);
    }
    let agent = folder.join("as-process-1");
    fs::copy(repository().join("e2e/tools/as-process-1"), &agent)?;
    let status = tests
        .current_dir(repository())
        .env("FAIRWAY_AGENT", &agent)
        .status()?;
    ensure!(status.success(), "the agent's tests ended with {status}");
    Ok(())
}

/// Builds the image of these binaries for arm64, and returns the architecture that it names.
fn architecture_of_image(folder: &Path) -> Result<String> {
    const IMAGE: &str = "fairway-arm64";
    let paths = Paths::from_env()?;
    run(images::buildah(&paths)
        .args([
            "bud",
            "--isolation",
            "chroot",
            "--layers=false",
            "--platform",
            "linux/arm64",
        ])
        .args(["--tag", IMAGE, "--file"])
        .arg(repository().join("e2e/images/fairway/Dockerfile"))
        .arg(folder))?;
    let format = "{{.OCIv1.Architecture}}";
    let architecture =
        run(images::buildah(&paths).args(["inspect", "--type", "image", "--format", format, IMAGE]))?;
    run(images::buildah(&paths).args(["rmi", "--force", IMAGE]))?;
    Ok(architecture.trim().to_owned())
}
