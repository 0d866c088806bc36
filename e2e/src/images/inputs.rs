//! What images are made of: root file systems of Debian packages, npm packages, and our binaries.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::command::{cargo, run};
use crate::hex;
use crate::paths::{Paths, repository};
use crate::progress::{Progress, seconds};
use crate::tools::build_each;

/// Binaries are static, so that they run in any image, also in an empty one.
const TARGET: &str = "x86_64-unknown-linux-musl";
const SUITE: &str = "bookworm";

/// A C library that an image brings, with which its program is linked when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Library {
    /// GNU's, as this machine has it.
    Gnu,
    /// musl, as Alpine has it.
    Musl,
}

/// One file in the folder from which an image is built.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// A file of an installed Debian package.
    Installed { path: &'static str, name: &'static str },
    /// A root file system.
    Debian(&'static Debian),
    /// A tar of the folder `take` after `npm install package@version`.
    Npm {
        name: &'static str,
        package: &'static str,
        version: &'static str,
        take: &'static str,
    },
    /// A program that is built from a Go module.
    Go { name: &'static str },
    /// A binary of this workspace.
    Binary {
        package: &'static str,
        name: &'static str,
        /// A feature of the package that is switched on.
        feature: Option<&'static str>,
    },
    /// The same, linked with the C library of its image. Not optimised, since it proves nothing but that it runs.
    Linked {
        package: &'static str,
        name: &'static str,
        library: Library,
    },
}

/// A root file system of Debian packages, without documentation and without their scripts run.
#[derive(Debug)]
pub(super) struct Debian {
    file: &'static str,
    packages: &'static [&'static str],
    /// What is removed beside documentation.
    remove: &'static [&'static str],
}

/// What programs linked with the GNU C library need, and a shell.
pub(super) static BASE: Debian = Debian {
    file: "base.tar",
    packages: &[
        "libc6",
        "libstdc++6",
        "libgcc-s1",
        "ca-certificates",
        "dash",
        "coreutils",
    ],
    remove: &[],
};

/// PostgreSQL with its tools, without the compiler for queries, which is half of its size.
pub(super) static POSTGRES: Debian = Debian {
    file: "postgres.tar",
    packages: &["postgresql-15", "libc-bin", "tzdata", "dash", "coreutils"],
    remove: &[
        "usr/lib/x86_64-linux-gnu/libLLVM*",
        "usr/lib/llvm*",
        "usr/lib/postgresql/15/lib/bitcode",
        "usr/lib/postgresql/15/lib/llvmjit*",
    ],
};

const DOCUMENTATION: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "var/lib/apt",
    "var/cache",
];

impl Input {
    /// Its name in the folder from which the image is built.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Installed { name, .. }
            | Self::Npm { name, .. }
            | Self::Go { name }
            | Self::Binary { name, .. }
            | Self::Linked { name, .. } => name,
            Self::Debian(debian) => debian.file,
        }
    }

    /// The file, which is fetched first when it is not there.
    pub(super) fn fetch(&self, paths: &Paths) -> Result<PathBuf> {
        match self {
            Self::Installed { path, .. } => {
                // Libraries are often links to the file that is meant.
                fs::canonicalize(path)
                    .with_context(|| format!("{path} is not installed; run `make prerequisites`"))
            }
            Self::Debian(debian) => once(paths, self, |unfinished| bootstrap(debian, unfinished)),
            Self::Npm {
                package,
                version,
                take,
                ..
            } => once(paths, self, |unfinished| {
                npm(paths, package, version, take, unfinished)
            }),
            Self::Go { name } => {
                build_each(paths, &[name])?;
                Ok(paths.binary(name))
            }
            Self::Binary { name, feature, .. } => Ok(match feature {
                Some(feature) => featured(paths, name, feature),
                None => optimised(name),
            }),
            Self::Linked { name, library, .. } => Ok(library.target_folder().join(name)),
        }
    }

    /// A hash of what decides its content: the bytes of a binary, the versions of a download.
    pub(super) fn key(&self, file: &Path) -> Result<String> {
        match self {
            Self::Installed { .. } | Self::Go { .. } | Self::Binary { .. } | Self::Linked { .. } => {
                let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
                Ok(hex::encode(&Sha256::digest(bytes)))
            }
            Self::Debian(_) | Self::Npm { .. } => Ok(hex::encode(&Sha256::digest(format!("{self:?}")))),
        }
    }
}

/// Compiles all static binaries among the inputs in one invocation of cargo. Crates that several packages need get the
/// union of the features that the packages of one invocation ask for: built one by one, the operator and the agent
/// would each compile hyper, rustls and tokio again with features of their own, and throw away the other's.
pub(super) fn compile<'a>(paths: &Paths, inputs: impl Iterator<Item = &'a Input>) -> Result<()> {
    let mut packages = BTreeSet::new();
    let mut features = BTreeSet::new();
    let mut linked = BTreeSet::new();
    for input in inputs {
        match input {
            Input::Binary {
                package,
                name,
                feature,
            } => {
                packages.insert(*package);
                features.extend(feature.map(|feature| (*package, *name, feature)));
            }
            Input::Linked {
                package,
                name,
                library,
            } => {
                linked.insert((*library, *package, *name));
            }
            Input::Installed { .. } | Input::Debian(_) | Input::Npm { .. } | Input::Go { .. } => {}
        }
    }
    // Before the others, since cargo puts both to the same place; and with the same packages, so that they share what
    // they are made of.
    for (package, name, feature) in features {
        let mut cargo = build(packages.iter().copied());
        cargo.args(["--bins", "--release", "--target", TARGET, "--features"]);
        cargo.arg(format!("{package}/{feature}"));
        cargo_build(&mut cargo, format!("{package} with {feature}"))?;
        let file = featured(paths, name, feature);
        fs::copy(optimised(name), &file).with_context(|| format!("write {}", file.display()))?;
    }
    if !packages.is_empty() {
        let mut cargo = build(packages.iter().copied());
        cargo.args(["--bins", "--release", "--target", TARGET]);
        cargo_build(
            &mut cargo,
            packages.iter().copied().collect::<Vec<_>>().join(", "),
        )?;
    }
    for (library, package, name) in linked {
        let mut cargo = match library {
            // Without a package cargo takes the features of the workspace, and so what tools and tests have compiled.
            Library::Gnu => build(std::iter::empty()),
            Library::Musl => build(std::iter::once(package)),
        };
        cargo.args(["--bin", name]);
        library.link(paths, &mut cargo)?;
        cargo_build(&mut cargo, format!("{package} for {library:?}"))?;
    }
    Ok(())
}

fn build<'a>(packages: impl Iterator<Item = &'a str>) -> Command {
    let mut cargo = cargo();
    cargo.current_dir(repository()).args(["build", "--locked"]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    cargo
}

fn cargo_build(cargo: &mut Command, what: String) -> Result<()> {
    let progress = Progress::start(&format!("compile {what}"));
    // cargo shows its own progress.
    let status = cargo.status().context("start cargo")?;
    if !status.success() {
        bail!("cargo build ended with {status}; if musl-gcc was not found, run `make prerequisites`");
    }
    progress.done(&format!("compiled in {}", seconds(progress.elapsed())));
    Ok(())
}

impl Library {
    fn target_folder(self) -> PathBuf {
        match self {
            // Where the tests of the package have it already.
            Self::Gnu => target_folder().join("debug"),
            Self::Musl => target_folder().join("musl").join(TARGET).join("debug"),
        }
    }

    /// Adds what cargo must know to link with this library.
    fn link(self, paths: &Paths, cargo: &mut Command) -> Result<()> {
        if self == Self::Gnu {
            return Ok(());
        }
        let folder = unwinder(paths)?;
        let flags = format!(
            "target.{TARGET}.rustflags=[\"-Ctarget-feature=-crt-static\", \"-Clinker=musl-gcc\", \"-L{}\"]",
            folder.display()
        );
        cargo.args(["--target", TARGET, "--config", &flags]);
        // Other flags give other libraries: they must not take the place of the static ones.
        cargo.arg("--target-dir").arg(target_folder().join("musl"));
        Ok(())
    }
}

/// A folder in which the linker finds what it takes for GCC's unwinder, which on Debian needs the GNU C library:
/// the one that comes with Rust.
fn unwinder(paths: &Paths) -> Result<PathBuf> {
    let libraries = run(Command::new("rustc").current_dir(repository()).args([
        "--print",
        "target-libdir",
        "--target",
        TARGET,
    ]))?;
    let library = Path::new(libraries.trim()).join("self-contained/libunwind.a");
    let folder = paths.build().join("unwinder");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let file = folder.join("libgcc_s.so");
    fs::write(&file, format!("INPUT({})\n", library.display()))
        .with_context(|| format!("write {}", file.display()))?;
    Ok(folder)
}

/// Where cargo puts a static binary.
fn optimised(name: &str) -> PathBuf {
    target_folder().join(TARGET).join("release").join(name)
}

/// Where one with a feature is kept.
fn featured(paths: &Paths, name: &str, feature: &str) -> PathBuf {
    paths.build().join(format!("{name}-{feature}"))
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// Makes a file whose name holds the hash of its definition, unless it is there. It gets its name only
/// when it is whole.
fn once(paths: &Paths, input: &Input, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let key = input.key(Path::new(""))?;
    let file = paths.build().join(format!("{}-{}", &key[..12], input.name()));
    if file.exists() {
        return Ok(file);
    }
    let unfinished = paths.build().join(format!("unfinished-{}", input.name()));
    // mmdebstrap takes the format from the name.
    make(&unfinished)?;
    fs::rename(&unfinished, &file).with_context(|| format!("put {} into its place", file.display()))?;
    Ok(file)
}

fn bootstrap(debian: &Debian, file: &Path) -> Result<()> {
    let progress = Progress::start(&format!(
        "fetch {} Debian packages for {}",
        debian.packages.len(),
        debian.file
    ));
    let removed: Vec<String> = DOCUMENTATION
        .iter()
        .chain(debian.remove)
        .map(|path| format!("\"$1\"/{path}"))
        .collect();
    run(Command::new("mmdebstrap")
        .args(["--variant=extract", "--quiet"])
        .arg(format!("--include={}", debian.packages.join(",")))
        .arg(format!("--customize-hook=rm -rf {}", removed.join(" ")))
        .arg(SUITE)
        .arg(file))
    .context("Debian's packages come from the mirror deb.debian.org")?;
    progress.done(&format!("fetched in {}", seconds(progress.elapsed())));
    Ok(())
}

fn npm(paths: &Paths, package: &str, version: &str, take: &str, file: &Path) -> Result<()> {
    let progress = Progress::start(&format!("fetch {package} {version} from npm"));
    let folder = paths.build().join(format!("npm-{package}-{version}"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("package.json"), "{\"private\":true}")?;
    // Optional packages with native code are not used, so no package needs to compile anything.
    run(Command::new("npm").current_dir(&folder).args([
        "install",
        "--omit=dev",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        &format!("{package}@{version}"),
    ]))?;
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(file).args([
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ]);
    match take {
        // Only the program: its headers and npm are of no use at run time.
        "node" => tar
            .arg("--directory")
            .arg(folder.join("node_modules").join(package))
            .args(["--transform=s,^bin/node$,usr/bin/node,", "bin/node"]),
        folder_name => tar.arg("--directory").arg(&folder).arg(folder_name),
    };
    run(&mut tar)?;
    fs::remove_dir_all(&folder)?;
    progress.done(&format!("fetched in {}", seconds(progress.elapsed())));
    Ok(())
}
