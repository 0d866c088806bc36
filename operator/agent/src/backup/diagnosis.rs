//! What the errors of PostgreSQL's programs mean.

use std::io;

use fairway_protocol::{Failure, Reason};

use crate::{failure::environment as environment_failure, output::Tail, redact::Redactor};

/// The message of a scratch volume without room.
pub(crate) const SCRATCH_FULL: &str =
    "The scratch volume is full. Set backup.scratch.size to more than the size of the database.";

/// The failure to start, or to wait for, a program.
pub(crate) fn program_failed(program: &str, error: &io::Error) -> Failure {
    environment_failure(
        Reason::DumpFailed,
        format!("{program} could not be run: {error}. Check database.image."),
    )
}

fn last_line(errors: &Tail, redactor: &Redactor) -> String {
    errors
        .last_error(redactor)
        .unwrap_or_else(|| "without an error message".to_owned())
}

/// The failure that the errors of a dump program mean.
pub(crate) fn dump_failed(program: &str, errors: &Tail, redactor: &Redactor) -> Failure {
    let line = last_line(errors, redactor);
    if errors.any(scratch_is_full) {
        return environment_failure(Reason::StoreFull, SCRATCH_FULL);
    }
    if let Some(failure) = not_connected(program, errors, &line) {
        return failure;
    }
    environment_failure(
        Reason::DumpFailed,
        format!(
            "{program} failed ({line}). Let the role of database.connection read the whole database, or fix what the error \
             names."
        ),
    )
}

/// Whether the program itself found no room, which it needs only in the scratch volume, rather than the server whose
/// error it prints.
fn scratch_is_full(line: &str) -> bool {
    let is_full = ["No space left on device", "Disk quota exceeded"]
        .iter()
        .any(|words| line.contains(words));
    let is_the_servers = ["ERROR:", "FATAL:", "PANIC:", "query failed", "from server"]
        .iter()
        .any(|words| line.contains(words));
    is_full && !is_the_servers
}

/// The failure of a program that lost its connection, or never had one.
pub(crate) fn not_connected(program: &str, errors: &Tail, line: &str) -> Option<Failure> {
    let refused = |line: &str| {
        [
            "connection to server",
            "could not connect",
            "connection to database",
        ]
        .iter()
        .any(|words| line.contains(words))
    };
    let by_tls = |line: &str| {
        let tls = ["certificate", "private key", "SSL", "TLS"];
        refused(line) && tls.iter().any(|word| line.contains(word))
    };
    let gone = |line: &str| {
        ["server closed the connection", "terminating connection"]
            .iter()
            .any(|words| line.contains(words))
    };
    if errors.any(by_tls) {
        return Some(environment_failure(
            Reason::TlsFailed,
            format!(
                "The TLS handshake of {program} with the database failed ({line}). Check sslmode, sslrootcert, sslcert \
                 and sslkey in the connection string."
            ),
        ));
    }
    let what = match (errors.any(gone), errors.any(refused)) {
        (true, _) => format!("The database closed the connection of {program}"),
        (false, true) => {
            format!("{program} cannot connect to the database, although Fairway's own check can")
        }
        (false, false) => return None,
    };
    Some(environment_failure(
        Reason::DatabaseUnreachable,
        format!("{what} ({line}). Check that the server runs and stays reachable."),
    ))
}

/// The note on a backup without roles and tablespaces, where the role has no right to read them.
///
/// # Errors
/// Any other failure, because another attempt may read them.
pub(crate) fn why_without_globals(errors: &Tail, redactor: &Redactor) -> Result<String, Failure> {
    match errors.mentions("permission denied") {
        true => Ok(format!(
            "Roles and tablespaces are not in this backup: {}.",
            last_line(errors, redactor)
        )),
        false => Err(dump_failed("pg_dumpall", errors, redactor)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "pg_dump: error: connection to server at \"db\" (10.0.0.1), port 5432 failed: root certificate file \
         \"/root/.postgresql/root.crt\" does not exist\nEither provide the file or change sslmode.",
        Reason::TlsFailed
    )]
    #[case(
        "pg_dump: error: connection to server at \"db\" (10.0.0.1), port 5432 failed: Connection refused",
        Reason::DatabaseUnreachable
    )]
    #[case(
        "pg_dump: error: Dumping the contents of table \"a\" failed: PQgetCopyData() failed.\n\
         pg_dump: detail: Error message from server: server closed the connection unexpectedly",
        Reason::DatabaseUnreachable
    )]
    #[case(
        "pg_dump: error: query failed: FATAL:  terminating connection due to administrator command",
        Reason::DatabaseUnreachable
    )]
    #[case(
        "pg_dump: error: query failed: ERROR:  permission denied for table certificate",
        Reason::DumpFailed
    )]
    #[case(
        "pg_dump: error: could not write to output file: No space left on device",
        Reason::StoreFull
    )]
    #[case(
        "pg_dump: error: Dumping the contents of table \"a\" failed: PQgetResult() failed.\n\
         pg_dump: detail: Error message from server: ERROR:  could not write to file \"base/pgsql_tmp/1\": \
         No space left on device",
        Reason::DumpFailed
    )]
    fn each_error_of_pg_dump_has_its_reason(#[case] errors: &str, #[case] reason: Reason) {
        let mut tail = Tail::default();
        errors.lines().for_each(|line| tail.push(line.as_bytes()));
        assert_eq!(dump_failed("pg_dump", &tail, &Redactor::new([])).reason, reason);
    }

    #[rstest]
    #[case(
        "pg_dumpall: error: query failed: ERROR:  permission denied for table pg_auth_members",
        None
    )]
    #[case(
        "pg_dumpall: error: connection to server at \"db\", port 5432 failed: FATAL:  sorry, too many clients already",
        Some(Reason::DatabaseUnreachable)
    )]
    #[case(
        "pg_dumpall: error: query failed: ERROR:  canceling statement due to statement timeout",
        Some(Reason::DumpFailed)
    )]
    fn only_a_missing_right_gives_a_backup_without_globals(
        #[case] errors: &str,
        #[case] reason: Option<Reason>,
    ) {
        let mut tail = Tail::default();
        tail.push(errors.as_bytes());
        let failure = why_without_globals(&tail, &Redactor::new([])).err();
        assert_eq!(failure.map(|failure| failure.reason), reason);
    }
}
