//! Running other programs with errors that show what was run and what it printed.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or exits with anything but 0; the error carries its standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| {
        format!("start `{line}`; `make prerequisites` installs every program that is needed")
    })?;
    if !output.status.success() {
        bail!(
            "`{line}` ended with {}: {}",
            output.status,
            last_lines(&output.stderr, 15)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program with the given standard input.
///
/// # Errors
/// When it cannot be started or its input cannot be written.
pub fn feed(mut command: Command, input: &[u8]) -> Result<Output> {
    let line = describe(&command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{line}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input) {
            // A program that ends without reading its input shows why by its exit status.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(error).with_context(|| format!("write the input of `{line}`"));
            }
            _ => {}
        }
    }
    child
        .wait_with_output()
        .with_context(|| format!("wait for `{line}`"))
}

/// Keeps a program that honours proxies from asking one for addresses that only this machine knows.
pub fn without_proxy(command: &mut Command) -> &mut Command {
    command.env("NO_PROXY", "*").env("no_proxy", "*")
}

/// cargo, without what `cargo run` sets in the environment of the program that calls this. Where a build script reads
/// such a variable, as ring's does, it would run again, and all that depends on it would be compiled again.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_a_package) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Whether cargo sets this variable for the programs and build scripts of a package.
fn is_of_a_package(variable: &str) -> bool {
    variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_")
}

/// The command as one would type it, without its environment.
#[must_use]
pub fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The end of what a program printed: enough to see why it failed.
#[must_use]
pub fn last_lines(text: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c"), "{text}");
        assert!(text.contains("broken"), "{text}");
    }

    #[test]
    fn cargo_is_called_without_the_variables_of_this_package() {
        // The tests themselves run with them.
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
        let cargo = cargo();
        let removed: Vec<_> = cargo.get_envs().filter(|(_, value)| value.is_none()).collect();
        assert!(
            removed.iter().any(|(name, _)| *name == "CARGO_PKG_NAME"),
            "{removed:?}"
        );
        assert!(
            !removed.iter().any(|(name, _)| *name == "CARGO_HOME"),
            "{removed:?}"
        );
    }

    #[test]
    fn the_last_lines_of_a_short_text_are_all_of_it() {
        assert_eq!(last_lines(b"a\nb\n", 5), "a\nb");
        assert_eq!(last_lines(b"a\nb\nc\n", 2), "b\nc");
    }
}
