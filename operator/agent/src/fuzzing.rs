//! What must hold of all that the agent reads of others, whatever bytes it is: the fuzz targets in `operator/fuzz` call
//! these functions with what libFuzzer finds, the unit tests below with the seeds that it begins with.

use fairway_protocol::RestoreProof;

use crate::{backup::manifest::Manifest, connection::Connection, output::Tail, redact::Redactor};

/// Longest message of a refusal, which becomes a part of a report.
const MESSAGE: usize = 400;

/// A connection string is refused, or has all that a session needs.
pub fn connection(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // It comes in a variable, which holds no such byte.
    if text.contains('\0') {
        return;
    }
    let read = Connection::parse(text);
    assert_eq!(read, Connection::parse(text), "it is read in two ways");
    let connection = match read {
        Ok(connection) => connection,
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() <= MESSAGE, "{} bytes: {message}", message.len());
            assert!(!message.contains(char::is_control), "{message:?}");
            return;
        }
    };
    assert!(!connection.user.is_empty() && !connection.database.is_empty());
    assert!(!connection.hosts.is_empty());
    for host in &connection.hosts {
        assert!(!host.name.is_empty() && host.port > 0, "{host:?}");
    }
    for (name, value) in connection.libpq_variables() {
        // No program starts with one.
        assert!(!value.contains('\0'), "{name}");
    }
    let concealed = connection.conceal(text);
    // What hides a name of asterisks is that name.
    if !connection.secret_names().iter().any(|name| name.contains('*')) {
        assert_eq!(connection.conceal(&concealed), concealed);
    }
}

/// A stored manifest is refused, or read as it was written; only the Backup whose seal it bears believes it.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else {
        return;
    };
    // A float may change in its last digit.
    let manifest = Manifest {
        seconds: 0.0,
        proof: manifest.proof.clone().map(|proof| RestoreProof {
            seconds: 0.0,
            ..proof
        }),
        ..manifest
    };
    assert!(manifest.check_seal("").is_err());
    let Ok(sealed) = manifest.sealed("uid") else {
        return;
    };
    assert!(sealed.check_seal("uid").is_ok() && sealed.check_seal("other").is_err());
    let written = sealed.to_json().unwrap_or_default();
    assert_eq!(Manifest::parse(&written).ok().as_ref(), Some(&sealed));
    let _ = sealed.evidence();
}

/// Of a program's output at most one short line is shown, without the values of its environment. The values come first,
/// up to a line break, each ended by a tab.
pub fn output(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let values = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let values: Vec<_> = values.split('\t').map(ToOwned::to_owned).collect();
    let redactor = Redactor::new(values.clone());
    let mut tail = Tail::default();
    lines.for_each(|line| tail.push(line));
    if let Some(code) = tail.sqlstate() {
        assert_eq!(code.len(), 5, "{code}");
    }
    let Some(line) = tail.last_error(&redactor) else {
        return;
    };
    assert!(line.len() <= 200 && !line.contains(char::is_control), "{line:?}");
    for value in values.iter().map(|value| value.trim()) {
        // What has an asterisk in it can come about again from what hides it.
        let is_hidden = value.len() >= 4 && !value.contains('*') && !line.contains('\u{fffd}');
        assert!(!is_hidden || !line.contains(value), "{value:?} in {line:?}");
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::connection(connection, include_str!("../../fuzz/seeds/connection.txt"))]
    #[case::manifest(manifest, include_str!("../../fuzz/seeds/manifest.txt"))]
    #[case::output(output, include_str!("../../fuzz/seeds/output.txt"))]
    fn what_fuzz_targets_check_holds_for_their_seeds(#[case] check: fn(&[u8]), #[case] seeds: &str) {
        for seed in seeds.lines() {
            check(seed.replace("\\n", "\n").as_bytes());
        }
    }
}
