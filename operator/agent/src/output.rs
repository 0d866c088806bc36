//! The last lines of a program's output: which line says why it failed, and with which SQLSTATE.

use std::collections::VecDeque;

use crate::{redact::Redactor, text::shortened, values::without_values};

/// Number of lines kept.
const LINES: usize = 80;
/// Length of the longest line kept, in bytes.
const LINE: usize = 4096;
/// Length of the longest line shown, in bytes.
const SHOWN: usize = 200;

/// Words by which a line is recognised as an error.
const ERROR_WORDS: [&str; 8] = [
    "error",
    "fatal",
    "panic",
    "exception",
    "failed",
    "denied",
    "refused",
    "cannot",
];

/// What drivers and programs write around an error message of the database.
const DATABASE_ERROR_MARKS: [&str; 19] = [
    "ERROR:  ",
    "FATAL:  ",
    "PANIC:  ",
    ": ERROR: ",
    ": FATAL: ",
    "(SQLSTATE ",
    "SQLSTATE[",
    "pq: ",
    "PG::",
    "psycopg2.errors.",
    "psycopg.errors.",
    "asyncpg.exceptions.",
    "Postgrex.Error",
    "PostgresError",
    "PostgresException",
    "PSQLException",
    "QueryFailedError: ",
    "error returned from database: ",
    "DatabaseError(",
];

/// What a line says that only points at what other lines have said, in lower case: where to read more, and that a program
/// which started another one saw it fail.
const POINTERS: [&str; 25] = [
    "background on this error",
    "complete log of this run",
    "npm err",
    "elifecycle",
    "exit code",
    "exit status",
    "exited with",
    "non-zero",
    "error code ",
    "didn't exit successfully",
    "make: ***",
    "for more information",
    "more help",
    "read more",
    "help 1]",
    "help 2]",
    "re-run ",
    "stack trace",
    "stacktrace",
    "full trace",
    "with --trace",
    "build failed",
    // Rails and Rake, whose next line has the database's error message.
    "later migrations canceled",
    "rails aborted",
    "rake aborted",
];

/// The database's answer to each statement after the one that failed, in lower case.
const TRANSACTION_ABORTED: &str = "current transaction is aborted";

/// What a line starts with that belongs to the one above it, in lower case.
const PARTS_OF_ERRORS: [&str; 12] = [
    "detail:",
    "hint:",
    "context:",
    "statement:",
    "query:",
    "line ",
    "[sql:",
    "[parameters:",
    "dberror {",
    "database error:",
    "database error code:",
    "at ",
];

/// Classes of SQLSTATE, <https://www.postgresql.org/docs/current/errcodes-appendix.html>, but for success,
/// warnings and no data.
const CLASSES: [&str; 40] = [
    "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "22", "23", "24", "25", "26", "27",
    "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57",
    "58", "72", "F0", "HV", "P0", "XX",
];

/// The last lines of a process's output, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    /// Adds one line without its break.
    pub(crate) fn push(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(&line[..line.len().min(LINE)]);
        let line = line.trim_end();
        if line.trim().is_empty() {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    /// The line that says why the program failed: the database's last error message, or else the last line that names an error,
    /// or else the last line. Without secrets and values of rows, at most 200 bytes.
    pub(crate) fn last_error(&self, redactor: &Redactor) -> Option<String> {
        let last = |kind: &dyn Fn(&str) -> bool| self.lines.iter().rev().find(|line| kind(line));
        let line = last(&|line| is_of_database(line) && !points_elsewhere(line))
            // Indented lines are stack frames and details of the line above them.
            .or_else(|| last(&|line| names_error(line) && !is_indented(line) && !points_elsewhere(line)))
            .or_else(|| last(&|line| names_error(line) && !is_indented(line)))
            .or_else(|| self.lines.back())?;
        let line = line.strip_prefix("Message    : ").unwrap_or(line);
        // Hidden twice: control characters may be part of a value, or stand between its parts.
        let redacted = redactor.line(line);
        let printable: String = redacted.chars().filter(|c| !c.is_control()).collect();
        let redacted = redactor.line(printable.trim());
        Some(shortened(&without_values(&redacted), SHOWN))
    }

    /// The lines, the first one first.
    pub(crate) fn lines(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.lines.iter().map(String::as_str)
    }

    /// Whether any line holds this text.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.any(|line| line.contains(text))
    }

    /// Whether any line is of this kind.
    pub(crate) fn any(&self, kind: impl Fn(&str) -> bool) -> bool {
        self.lines.iter().any(|line| kind(line))
    }

    /// The last SQLSTATE in the output, but for that of statements in a transaction that had failed.
    pub(crate) fn sqlstate(&self) -> Option<String> {
        let mut states = self.lines.iter().rev().filter_map(|line| sqlstate(line));
        let last = states.next()?;
        let cause = std::iter::once(last.clone())
            .chain(states)
            .find(|state| state != IN_FAILED_TRANSACTION);
        Some(cause.unwrap_or(last))
    }
}

/// The SQLSTATE of each statement after the one that failed, until the end of the transaction.
const IN_FAILED_TRANSACTION: &str = "25P02";

fn is_indented(line: &str) -> bool {
    line.starts_with(char::is_whitespace)
}

/// Whether a line has an error message of the database, as drivers and programs print it.
fn is_of_database(line: &str) -> bool {
    let trimmed = line.trim_start();
    is_marked(line)
        || (!is_indented(line) && ["ERROR: ", "error: "].iter().any(|mark| line.starts_with(mark)))
        || trimmed.split_once(": ").is_some_and(|(code, _)| is_code(code))
}

/// Whether a line shows by a driver's mark that it has an error message of the database, which may hold any words.
fn is_marked(line: &str) -> bool {
    DATABASE_ERROR_MARKS.iter().any(|mark| line.contains(mark))
}

fn names_error(line: &str) -> bool {
    let lower = line.to_lowercase();
    ERROR_WORDS.iter().any(|word| lower.contains(word))
}

/// Whether a line points at others, or belongs to another one.
fn points_elsewhere(line: &str) -> bool {
    let lower = line.trim_start().to_lowercase();
    lower.contains(TRANSACTION_ABORTED)
        || (!is_marked(line) && POINTERS.iter().any(|pointer| lower.contains(pointer)))
        || PARTS_OF_ERRORS.iter().any(|part| lower.starts_with(part))
}

/// A SQLSTATE in a line: five characters of a known class, right after `SQLSTATE`, `code` or in the place
/// where `psql` and the server's own messages put it (`ERROR:  42P07:`, `(42P07)`).
fn sqlstate(line: &str) -> Option<String> {
    let mut start = 0;
    let mut found = None;
    let separators = line.match_indices(|c: char| !c.is_ascii_alphanumeric());
    for (end, separator) in separators.chain([(line.len(), "")]) {
        let (before, token, after) = (&line[..start], &line[start..end], &line[end..]);
        start = end + separator.len();
        // tokio-postgres' Debug writes `SqlState(E42P07)`.
        let code = if token.len() == 6 {
            token.strip_prefix('E').unwrap_or(token)
        } else {
            token
        };
        if is_code(code) && is_announced(before, after) {
            found = Some(code.to_owned());
        }
    }
    found
}

fn is_code(token: &str) -> bool {
    token.len() == 5
        && token
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
        && CLASSES.iter().any(|class| token.starts_with(class))
}

fn is_announced(before: &str, after: &str) -> bool {
    let lead = before
        .trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_lowercase();
    let word = lead
        .rsplit(|c: char| !c.is_ascii_alphanumeric())
        .next()
        .unwrap_or_default();
    let announced = ["sqlstate", "code", "pgcode", "error", "fatal"].contains(&word);
    announced
        // Flyway writes `SQL State  : 42P07`.
        || lead.ends_with("sql state")
        // Npgsql writes `42P07: relation "a" already exists`.
        || (before.trim().is_empty() && after.starts_with(": "))
        || (before.ends_with('(') && after.starts_with(')'))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn tail(text: &str) -> Tail {
        let mut tail = Tail::default();
        text.lines().for_each(|line| tail.push(line.as_bytes()));
        tail
    }

    #[rstest]
    #[case("  code: '42P07',", Some("42P07"))]
    #[case(r#"{"severity":"ERROR","code":"23505","detail":"x"}"#, Some("23505"))]
    #[case("SQLSTATE[42703]: Undefined column", Some("42703"))]
    #[case("ERROR:  42P07: relation \"a\" already exists", Some("42P07"))]
    #[case("ERROR: relation exists (SQLSTATE 42P07)", Some("42P07"))]
    #[case("pq: relation exists (42P07)", Some("42P07"))]
    #[case("Db { code: SqlState(E42P07) }", Some("42P07"))]
    #[case("error code 12345 in order 42000 of 40001 rows", None)]
    #[case("listening on port 42001", None)]
    #[case("ОШИБКА:  отношение „a“ уже существует (42P07)", Some("42P07"))]
    fn the_sqlstate_is_found_where_drivers_write_it(#[case] line: &str, #[case] code: Option<&str>) {
        assert_eq!(tail(line).sqlstate().as_deref(), code);
    }

    /// Ends of the output of programs, whose last error message of the database is what counts.
    #[rstest]
    #[case::psql(
        "psql:/sql/2.sql:4: ERROR:  relation \"a\" already exists\n",
        "psql:/sql/2.sql:4: ERROR:  relation \"a\" already exists",
        None
    )]
    #[case::psql_goes_on(
        "BEGIN\nERROR:  42P07: relation \"a\" already exists\nLOCATION:  heap_create_with_catalog, heap.c:1148\nERROR:  25P02: \
         current transaction is aborted, commands ignored until end of transaction block\nLOCATION:  exec_simple_query, \
         postgres.c:1078\nROLLBACK\n",
        "ERROR:  42P07: relation \"a\" already exists",
        Some("42P07")
    )]
    #[case::flyway(
        "ERROR: Migration of schema \"public\" to version \"2 - b\" failed! Changes successfully rolled back.\nERROR: Failed to \
         execute script V2__b.sql\n--------------------------------\nSQL State  : 42P07\nError Code : 0\nMessage    : ERROR: \
         relation \"a\" already exists\nLocation   : db/migration/V2__b.sql (/flyway/sql/V2__b.sql)\nLine       : 1\nStatement  \
         : create table a (x int)\n",
        "ERROR: relation \"a\" already exists",
        Some("42P07")
    )]
    #[case::spring_with_flyway(
        "org.springframework.beans.factory.BeanCreationException: Error creating bean with name 'flywayInitializer': \
         Migration V2__b.sql failed\n\tat org.springframework.boot.SpringApplication.run(SpringApplication.java:1317)\nCaused by: \
         org.flywaydb.core.internal.sqlscript.FlywaySqlScriptException: \nMigration V2__b.sql failed\n-----------\nSQL State  : \
         42P07\nError Code : 0\nMessage    : ERROR: relation \"a\" already exists\nLine       : 1\nStatement  : create table a \
         (x int)\n\n\tat org.flywaydb.core.internal.sqlscript.DefaultSqlScriptExecutor.handleException(DefaultSqlScriptExecutor.java:273)\n\
         Caused by: org.postgresql.util.PSQLException: ERROR: relation \"a\" already exists\n\tat \
         org.postgresql.core.v3.QueryExecutorImpl.receiveErrorResponse(QueryExecutorImpl.java:2676)\n\t... 21 common frames \
         omitted\n",
        "Caused by: org.postgresql.util.PSQLException: ERROR: relation \"a\" already exists",
        Some("42P07")
    )]
    #[case::liquibase(
        "Unexpected error running Liquibase: Migration failed for changeset db.changelog.xml::2::ann:\n     Reason: \
         liquibase.exception.DatabaseException: ERROR: relation \"a\" already exists [Failed SQL: (0) CREATE TABLE public.a (id \
         INTEGER NOT NULL)]\n\nFor more information, please use the --log-level flag\n",
        "Reason: liquibase.exception.DatabaseException: ERROR: relation \"a\" already exists [Failed SQL: (0) CREATE TABLE \
         public.a (id INTEGER NOT NULL)]",
        None
    )]
    #[case::liquibase_in_maven(
        "[ERROR] Failed to execute goal org.liquibase:liquibase-maven-plugin:4.18.0:update (default) on project schema: \n\
         [ERROR] Error setting up or running Liquibase:\n[ERROR]      Reason: liquibase.exception.DatabaseException: ERROR: \
         relation \"a\" already exists\n[ERROR] -> [Help 1]\n[ERROR] \n[ERROR] To see the full stack trace of the errors, re-run \
         Maven with the -e switch.\n[ERROR] Re-run Maven using the -X switch to enable full debug logging.\n[ERROR] For more \
         information about the errors and possible solutions, please read the following articles:\n[ERROR] [Help 1] \
         http://cwiki.apache.org/confluence/display/MAVEN/MojoExecutionException\n",
        "[ERROR]      Reason: liquibase.exception.DatabaseException: ERROR: relation \"a\" already exists",
        None
    )]
    #[case::alembic(
        "psycopg2.errors.DuplicateTable: relation \"a\" already exists\n\n\nThe above exception was the direct cause of the \
         following exception:\n\nTraceback (most recent call last):\n  File \"/usr/bin/alembic\", line 8, in <module>\n    \
         sys.exit(main())\nsqlalchemy.exc.ProgrammingError: (psycopg2.errors.DuplicateTable) relation \"a\" already exists\n\n\
         [SQL: \nCREATE TABLE a (\n\tid INTEGER NOT NULL\n)\n\n]\n(Background on this error at: https://sqlalche.me/e/20/f405)\n",
        "sqlalchemy.exc.ProgrammingError: (psycopg2.errors.DuplicateTable) relation \"a\" already exists",
        None
    )]
    #[case::alembic_with_rows(
        "sqlalchemy.exc.IntegrityError: (psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint \
         \"users_email_key\"\nDETAIL:  Key (email)=(ann@example.org) already exists.\n\n[SQL: INSERT INTO users (email) VALUES \
         (%(email)s)]\n[parameters: {'email': 'ann@example.org'}]\n(Background on this error at: https://sqlalche.me/e/20/gkpj)\n",
        "sqlalchemy.exc.IntegrityError: (psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint \
         \"users_email_key\"",
        None
    )]
    #[case::django(
        "psycopg.errors.DuplicateTable: relation \"a\" already exists\n\nThe above exception was the direct cause of the \
         following exception:\n\nTraceback (most recent call last):\n  File \"/app/manage.py\", line 22, in <module>\n    \
         main()\n  File \"/usr/lib/python3/dist-packages/django/db/utils.py\", line 91, in __exit__\n    raise \
         dj_exc_value.with_traceback(traceback) from exc_value\ndjango.db.utils.ProgrammingError: relation \"a\" already \
         exists\n",
        "psycopg.errors.DuplicateTable: relation \"a\" already exists",
        None
    )]
    #[case::rails(
        "bin/rails aborted!\nStandardError: An error has occurred, this and all later migrations canceled: \
         (StandardError)\n\nPG::DuplicateTable: ERROR:  relation \"people\" already exists\n/app/db/migrate/2_create_people.rb:3:in \
         `change'\n\nCaused by:\nActiveRecord::StatementInvalid: PG::DuplicateTable: ERROR:  relation \"people\" already exists \
         (ActiveRecord::StatementInvalid)\n/app/db/migrate/2_create_people.rb:3:in `change'\n\nCaused by:\nPG::DuplicateTable: \
         ERROR:  relation \"people\" already exists (PG::DuplicateTable)\n/app/db/migrate/2_create_people.rb:3:in `change'\nTasks: \
         TOP => db:migrate\n(See full trace by running task with --trace)\n",
        "PG::DuplicateTable: ERROR:  relation \"people\" already exists (PG::DuplicateTable)",
        None
    )]
    #[case::npm_with_knex(
        "Using environment: production\nmigration file \"2.js\" failed\nmigration failed with error: create table \"a\" (\"id\" \
         serial primary key) - relation \"a\" already exists\nerror: relation \"a\" already exists\n    at Connection.parseE \
         (/app/node_modules/pg/lib/connection.js:554:11)\n    at TCP.onread (net.js:639:20)\nnpm ERR! code ELIFECYCLE\nnpm ERR! \
         errno 1\nnpm ERR! crm@0.9.0 migrate: `knex migrate:latest`\nnpm ERR! Exit status 1\nnpm ERR! \nnpm ERR! Failed at the \
         crm@0.9.0 migrate script.\nnpm ERR! A complete log of this run can be found in:\nnpm ERR!     \
         /home/node/.npm/_logs/2026-01-01T00_00_00_000Z-debug.log\n",
        "error: relation \"a\" already exists",
        None
    )]
    #[case::npm_10_with_typeorm(
        "Migration \"B1771080196816\" failed, error: relation \"a\" already exists\nError during migration run:\nQueryFailedError: \
         relation \"a\" already exists\n    at PostgresQueryRunner.query (/app/src/PostgresQueryRunner.ts:219:19) {\n  query: \
         'CREATE TABLE \"a\" (\"id\" integer)',\n  parameters: undefined,\n  driverError: error: relation \"a\" already exists\n      \
         at Parser.parseErrorMessage (/app/node_modules/pg-protocol/dist/parser.js:278:15) {\n    length: 93,\n    severity: \
         'ERROR',\n    code: '42P07',\n    detail: undefined\n  }\n}\nnpm error code 1\nnpm error command failed\nnpm error A \
         complete log of this run can be found in: /root/.npm/_logs/2026-debug-0.log\n",
        "QueryFailedError: relation \"a\" already exists",
        Some("42P07")
    )]
    #[case::yarn_with_sequelize(
        "Sequelize CLI [Node: 20.11.0, CLI: 6.6.2, ORM: 6.37.1]\n\n== 2-b: migrating =======\n\nERROR: relation \"a\" already \
         exists\n\nerror Command failed with exit code 1.\ninfo Visit https://yarnpkg.com/en/docs/cli/run for documentation about \
         this command.\n",
        "ERROR: relation \"a\" already exists",
        None
    )]
    #[case::pnpm_with_prisma(
        "Applying migration `2_b`\nError: P3018\n\nA migration failed to apply. New migrations cannot be applied before the error \
         is recovered from. Read more about how to resolve migration issues in a production database: \
         https://pris.ly/d/migrate-resolve\n\nMigration name: 2_b\n\nDatabase error code: 42P07\n\nDatabase error:\nERROR: relation \
         \"a\" already exists\n\nDbError { severity: \"ERROR\", parsed_severity: Some(Error), code: SqlState(E42P07), message: \
         \"relation \\\"a\\\" already exists\", detail: None, hint: None }\n\n ELIFECYCLE  Command failed with exit code 1.\n",
        "ERROR: relation \"a\" already exists",
        Some("42P07")
    )]
    #[case::ecto(
        "12:40:38.510 [info] create table seats\n** (Postgrex.Error) ERROR 42P07 (duplicate_table) relation \"seats\" already \
         exists\n    (ecto_sql 3.11.1) lib/ecto/adapters/sql.ex:1054: Ecto.Adapters.SQL.raise_sql_call_error/1\n",
        "** (Postgrex.Error) ERROR 42P07 (duplicate_table) relation \"seats\" already exists",
        Some("42P07")
    )]
    #[case::entity_framework(
        "Failed executing DbCommand (7ms) [Parameters=[], CommandType='Text', CommandTimeout='30']\nCREATE TABLE \"a\" (\n    \
         \"Id\" text NOT NULL\n);\nNpgsql.PostgresException (0x80004005): 42P07: relation \"a\" already exists\n   at \
         Npgsql.Internal.NpgsqlConnector.ReadMessageLong(Boolean async)\n  Exception data:\n    Severity: ERROR\n    SqlState: \
         42P07\n    MessageText: relation \"a\" already exists\n    File: heap.c\n    Line: 1160\n    Routine: \
         heap_create_with_catalog\n42P07: relation \"a\" already exists\n",
        "42P07: relation \"a\" already exists",
        Some("42P07")
    )]
    #[case::laravel(
        "   INFO  Running migrations.  \n\n  2_create_a ............................ 2.13ms FAIL\n\nIn Connection.php line \
         829:\n                                                               \n  SQLSTATE[42P07]: Duplicate table: 7 ERROR:  \
         relation \"a\" already  \n   exists (Connection: pgsql, SQL: create table \"a\" (\"id\" bigserial not   \n  null))  \n\n",
        "SQLSTATE[42P07]: Duplicate table: 7 ERROR:  relation \"a\" already",
        Some("42P07")
    )]
    #[case::goose(
        "2026/01/01 00:00:00 goose run: ERROR 00002_b.sql: failed to run SQL migration: failed to execute SQL query \"create \
         table a (x int);\": ERROR: relation \"a\" already exists (SQLSTATE 42P07)\n",
        "2026/01/01 00:00:00 goose run: ERROR 00002_b.sql: failed to run SQL migration: failed to execute SQL query \"create \
         table a (x int);\": ERROR: relation \"a\" already exists (SQLSTATE 42P07)",
        Some("42P07")
    )]
    #[case::golang_migrate_in_make(
        "error: migration failed: relation \"a\" already exists in line 0: create table a (x int); (details: pq: relation \"a\" \
         already exists)\nmake: *** [Makefile:12: migrate] Error 1\n",
        "error: migration failed: relation \"a\" already exists in line 0: create table a (x int); (details: pq: relation \"a\" \
         already exists)",
        None
    )]
    #[case::sqlx(
        "Applied 1/migrate a (8.1ms)\nerror: while executing migration 2: error returned from database: relation \"a\" already \
         exists\n\nCaused by:\n    0: error returned from database: relation \"a\" already exists\n    1: relation \"a\" already \
         exists\n",
        "0: error returned from database: relation \"a\" already exists",
        None
    )]
    #[case::a_script_that_calls_python(
        "Traceback (most recent call last):\n  File \"/app/m.py\", line 3, in <module>\n    cur.execute(sql)\n\
         psycopg2.errors.UndefinedColumn: column \"b\" does not exist\nLINE 1: select b from a\n               ^\nHINT:  Perhaps you \
         meant to reference the column \"a.a\".\n\nsubprocess.CalledProcessError: Command '['python', '/app/m.py']' returned \
         non-zero exit status 1.\n",
        "psycopg2.errors.UndefinedColumn: column \"b\" does not exist",
        None
    )]
    #[case::words_of_a_pointer_in_the_message(
        "psql:2.sql:4: ERROR:  ratio must be non-zero, read more in the manual\nmake: *** [Makefile:3: migrate] Error 3\n",
        "psql:2.sql:4: ERROR:  ratio must be non-zero, read more in the manual",
        None
    )]
    fn f7_the_last_error_is_that_of_the_database(
        #[case] output: &str,
        #[case] line: &str,
        #[case] sqlstate: Option<&str>,
    ) {
        let tail = tail(output);
        assert_eq!(
            tail.last_error(&Redactor::new([])).as_deref(),
            Some(&*shortened(line, SHOWN))
        );
        assert_eq!(tail.sqlstate().as_deref(), sqlstate);
    }

    /// Where a program says nothing of the database, its own last word counts, and a pointer is better than nothing.
    #[rstest]
    #[case::own(
        "Error: migration 3 has no up.sql\nerror Command failed with exit code 1.\n",
        "Error: migration 3 has no up.sql"
    )]
    #[case::pointer(
        "starting\nerror Command failed with exit code 1.\ninfo Visit\n",
        "error Command failed with exit code 1."
    )]
    #[case::nothing("starting\nstopped\n", "stopped")]
    fn f7_without_an_error_of_the_database(#[case] output: &str, #[case] line: &str) {
        assert_eq!(tail(output).last_error(&Redactor::new([])).as_deref(), Some(line));
    }

    #[test]
    fn an_error_is_found_before_its_stack_trace() {
        let output = "/app/client.js:526\n      Error.captureStackTrace(error)\n\nerror: relation \"a\" already exists\n    \
                      at Parser.parse (error.js:1)\n  severity: 'ERROR',\n  code: '42P07'\n}\n\nNode.js v22.23.3\n";
        let tail = tail(output);
        let nothing = Redactor::new([]);
        assert_eq!(
            tail.last_error(&nothing).as_deref(),
            Some("error: relation \"a\" already exists")
        );
        assert_eq!(tail.sqlstate().as_deref(), Some("42P07"));
    }

    #[test]
    fn without_an_error_the_last_line_is_shown() {
        let nothing = Redactor::new([]);
        assert_eq!(
            tail("one\n\n\u{1b}[31mtwo\u{1b}[0m\n")
                .last_error(&nothing)
                .as_deref(),
            Some("[31mtwo[0m")
        );
        assert_eq!(tail("").last_error(&nothing), None);
    }

    #[test]
    fn a_secret_in_the_last_line_is_hidden() {
        let redactor = Redactor::new(["hunter2-secret".to_owned()]);
        let line = tail("fatal: password hunter2-secret rejected").last_error(&redactor);
        assert_eq!(line.as_deref(), Some("fatal: password *** rejected"));
    }

    #[test]
    fn a_secret_with_control_characters_is_hidden() {
        let redactor = Redactor::new(["hun\tter2-secret".to_owned()]);
        for line in ["fatal: hun\tter2-secret", "fatal: hun\u{7}ter2-secret"] {
            assert_eq!(tail(line).last_error(&redactor).as_deref(), Some("fatal: ***"));
        }
    }
}
