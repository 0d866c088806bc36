//! Writes the API reference `api.md` into the folder given.
//!
//! `apidoc docs/reference` writes; `apidoc --check FOLDER` exits 1 when the file is not what the types say.

use fairway_crds::generate;

fn main() -> std::process::ExitCode {
    generate::main(&[generate::reference()], "docs")
}
