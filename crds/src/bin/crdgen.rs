//! Writes every CustomResourceDefinition as YAML, one file per kind, into the folder given.
//!
//! `crdgen charts/fairway-crds/templates` writes; `crdgen --check FOLDER` exits 1 and names the files that
//! are out of date.

use fairway_crds::generate;

fn main() -> std::process::ExitCode {
    generate::main(&generate::manifests(), "crds")
}
