//! What the errors of PostgreSQL's programs mean.

use std::io;

use fairway_protocol::{Failure, Reason};

use crate::{
    failure::{environment as environment_failure, version},
    output::Tail,
    redact::Redactor,
    text::shortened,
};

/// The message of a scratch volume without room.
pub(crate) const SCRATCH_FULL: &str =
    "The scratch volume is full. Set backup.scratch.size to more than the size of the database.";

/// Longest name of an object in a message, in bytes.
const OBJECT: usize = 100;

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
fn not_connected(program: &str, errors: &Tail, line: &str) -> Option<Failure> {
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
        (true, _) => "The database closed the connection during the backup".to_owned(),
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

/// The failure of a dump that `pg_restore` cannot read.
pub(crate) fn not_decoded(what: &str) -> Failure {
    environment_failure(
        Reason::DecodeFailed,
        format!(
            "The dump was written, but pg_restore cannot read it ({what}). If that repeats, check the disk or service \
             behind the store of spec.backup."
        ),
    )
}

/// The failure of a restore, by the last lines of the errors of `pg_restore` in the clone. The dump's own code may have
/// written some of them.
pub(crate) fn not_restorable(errors: &Tail, redactor: &Redactor) -> Failure {
    let line = last_line(errors, redactor);
    if errors.mentions("No space left on device") || errors.mentions("Disk quota exceeded") {
        return environment_failure(
            Reason::StoreFull,
            "The volume of the restored copy is full. Set backup.scratch.size to more than the size of the database.",
        );
    }
    let gone = [
        "server closed the connection",
        "terminating connection",
        "could not connect",
        "connection to server",
        "out of memory",
        "out of shared memory",
    ];
    if gone.iter().any(|words| errors.mentions(words)) {
        return environment_failure(
            Reason::CloneFailed,
            format!(
                "The throwaway server ended while the backup was being restored ({line}). If it ran out of memory, set \
                 database.clone.resources, or its settings in database.clone.settings."
            ),
        );
    }
    if !errors.any(|line| line.contains("ERROR:")) {
        return not_decoded(&line);
    }
    let object = failing_object(errors, redactor);
    let subject = object.as_deref().unwrap_or("an object");
    version(
        Reason::BackupNotRestorable,
        format!(
            "The dump was written and read back, but {subject} cannot be restored from it ({line}). {}",
            fix_of(&line)
        ),
    )
}

/// What a user can do about an error of a restore.
fn fix_of(line: &str) -> &'static str {
    let mentions = |words: &[&str]| words.iter().any(|words| line.contains(words));
    if line.contains("role \"") && line.contains("does not exist") {
        return "Revoke what the database still grants to that role.";
    }
    if mentions(&["does not exist", "no schema has been selected"]) {
        return "pg_restore empties search_path: write ALTER FUNCTION ... SET search_path for each function that it uses, \
                or name schemas in it.";
    }
    if mentions(&["must be superuser", "permission denied", "must be owner"]) {
        return "Only a superuser may restore it: leave its extension out with database.clone.withoutExtensions, or set \
                backup.verify to Decoded.";
    }
    "Fix that object, or the rows that do not obey it, in the database."
}

/// The object at which a restore failed, as `INDEX lead_name`. `pg_restore` names it, before the error, as
/// `from TOC entry 3301; 1259 16420 INDEX lead_name crm`.
fn failing_object(errors: &Tail, redactor: &Redactor) -> Option<String> {
    let entry = errors
        .lines()
        .rev()
        .find_map(|line| line.split_once("from TOC entry "))?
        .1;
    let mut words = entry.splitn(4, ' ').skip(3);
    let (what, _owner) = words.next()?.rsplit_once(' ')?;
    let printable: String = what.chars().filter(|c| !c.is_control()).collect();
    Some(shortened(&redactor.line(&printable), OBJECT))
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
        "pg_restore: while PROCESSING TOC:\npg_restore: from TOC entry 3301; 1259 16420 INDEX lead_name crm\n\
         pg_restore: error: could not execute query: ERROR:  function unaccent(text) does not exist\n\
         LINE 1: select unaccent($1)\nHINT:  No function matches the given name.\n\
         Command was: CREATE INDEX lead_name ON public.lead USING btree (public.plain(name));",
        Reason::BackupNotRestorable,
        "INDEX lead_name cannot be restored"
    )]
    #[case(
        "pg_restore: from TOC entry 3440; 0 16400 TABLE DATA lead crm\n\
         pg_restore: error: COPY failed for table \"lead\": ERROR:  new row for relation \"lead\" violates check \
         constraint \"named\"\nDETAIL:  Failing row contains (1, secret).",
        Reason::BackupNotRestorable,
        "TABLE DATA lead cannot be restored"
    )]
    #[case(
        "pg_restore: error: could not read from input file: end of file",
        Reason::DecodeFailed,
        "end of file"
    )]
    #[case(
        "pg_restore: error: COPY failed for table \"lead\": ERROR:  could not extend file \"base/5/16400\": No space left \
         on device",
        Reason::StoreFull,
        "scratch.size"
    )]
    #[case(
        "pg_restore: error: could not execute query: server closed the connection unexpectedly",
        Reason::CloneFailed,
        "resources"
    )]
    fn each_error_of_a_restore_has_its_reason(
        #[case] errors: &str,
        #[case] reason: Reason,
        #[case] said: &str,
    ) {
        let mut tail = Tail::default();
        errors.lines().for_each(|line| tail.push(line.as_bytes()));
        let failure = not_restorable(&tail, &Redactor::new([]));
        assert_eq!(failure.reason, reason);
        assert!(failure.message.contains(said), "{}", failure.message);
        assert!(!failure.message.contains("secret"), "{}", failure.message);
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
