//! Writes the API reference `api.md` into the folder given.
//!
//! `apidoc docs/reference` writes; `apidoc --check FOLDER` exits 1 if the file is out of date.

use fairway_crds::generate;

fn main() -> std::process::ExitCode {
    generate::main(&[generate::reference()], "docs")
}
