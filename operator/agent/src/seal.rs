//! Keeps the agent's own variables, connection strings among them, from the programs that run beside it.
//!
//! A migration may be of the same user as its parent, the agent, and then `/proc/<parent>/environ` is as good as its own:
//! it shows the environment block with which the kernel started the process, whatever the process has removed since. So the
//! agent executes itself again without its variables in that block, hands them on in memory, and is not dumpable, which
//! closes `/proc/<agent>` to other processes of its user.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::{ffi::OsStringExt as _, process::CommandExt as _},
    process::Command,
};

use fairway_protocol::VARIABLE_PREFIX;
use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::{DumpableBehavior, set_dumpable_behavior},
    stdio::dup2_stdin,
};

/// The variable which says that the agent's variables come by the standard input. It holds no value of theirs.
const SEALED: &str = "FAIRWAY_SEALED";

/// Closes this process to others of its user: no core dump, no `/proc` but the parts that everybody may read.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn close() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// The agent's variables. Where they are still in the environment block, the process is replaced by another run of this
/// program, in which they are not: then this does not return.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn variables() -> io::Result<BTreeMap<OsString, OsString>> {
    match std::env::var_os(SEALED) {
        Some(_) => unseal(),
        None => Err(restart()),
    }
}

/// Executes this program again, with its variables in memory that its standard input reads. Returns only errors.
fn restart() -> io::Error {
    let sealed = || {
        let mut memory = File::from(memfd_create("variables", MemfdFlags::CLOEXEC)?);
        for (name, value) in own() {
            memory.write_all(&[name.into_vec(), b"=".to_vec(), value.into_vec(), vec![0]].concat())?;
        }
        memory.rewind()?;
        Ok(dup2_stdin(memory)?)
    };
    if let Err(error) = sealed() {
        return error;
    }
    let mut arguments = std::env::args_os();
    let mut again = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    for (name, _) in own() {
        again.env_remove(name);
    }
    again.args(arguments).env(SEALED, "stdin").exec()
}

/// The agent's own variables in the environment block.
fn own() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(VARIABLE_PREFIX))
}

fn unseal() -> io::Result<BTreeMap<OsString, OsString>> {
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text)?;
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(text
        .split(|byte| *byte == 0)
        .filter_map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            Some((text(&pair[..equals]), text(&pair[equals + 1..])))
        })
        .collect())
}
