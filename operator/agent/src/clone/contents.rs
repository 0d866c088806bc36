//! The table of contents of a dump, and who restores what of it.

use super::wire::Pass;

/// What is restored by the superuser: it runs none of the dump's code. Privileges may have been granted by others than the
/// owner, which only a superuser can repeat; an extension, which the agent creates, is the superuser's to comment on; and a
/// publication of all tables is a superuser's.
const PRIVILEGES: [&str; 4] = ["ACL", "DEFAULT ACL", "COMMENT", "PUBLICATION"];
/// What is restored after the privileges.
const VIEWS: &str = "MATERIALIZED VIEW DATA";
/// What only a superuser may create, and would create from the dump's own words or for its code to run.
const OMITTED: [&str; 11] = [
    "ACCESS METHOD",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "SECURITY LABEL",
    "SUBSCRIPTION",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
    "TRANSFORM",
];
/// The catalog of extensions, which the agent creates before the dump is restored.
const EXTENSIONS: u32 = 3079;

/// A dump's table of contents, as `pg_restore --list` prints it.
pub(super) struct Contents<'a>(Vec<Entry<'a>>);

/// One line of it: `3201; 1259 16390 INDEX public lead_name crm`.
struct Entry<'a> {
    line: &'a str,
    /// OID of the catalog and OID in it.
    object: (u32, u32),
    /// Kind, schema, name and owner. The kind has one word or more, and nothing marks where it ends.
    what: &'a str,
}

/// Which list each pass restores, in order.
pub(super) struct Passes {
    /// The passes.
    pub(super) passes: [(Pass, String); 3],
    /// What no pass restores, though it is in the dump.
    pub(super) omitted: Vec<String>,
}

impl<'a> Contents<'a> {
    /// Reads what `pg_restore --list` printed.
    pub(super) fn parse(text: &'a str) -> Self {
        Self(text.lines().filter_map(Entry::parse).collect())
    }

    /// Distributes the entries over the passes, without the objects of these OIDs and without extensions, which are there
    /// already or are left out.
    pub(super) fn passes(&self, skip: &[(u32, u32)], without_extensions: &[String]) -> Passes {
        let mut omitted = Vec::new();
        let mut lists = [Pass::Objects, Pass::Privileges, Pass::Views].map(|pass| (pass, String::new()));
        for entry in &self.0 {
            let is_there = skip.contains(&entry.object) || entry.object.0 == EXTENSIONS;
            if is_there || without_extensions.iter().any(|name| entry.is_comment_on(name)) {
                continue;
            }
            let is = |kinds: &[&str]| kinds.iter().any(|kind| entry.is(kind));
            let pass = if is(&OMITTED) {
                omitted.push(entry.what.to_owned());
                continue;
            } else if is(&PRIVILEGES) {
                Pass::Privileges
            } else if entry.is(VIEWS) {
                Pass::Views
            } else {
                Pass::Objects
            };
            if let Some((_, list)) = lists.iter_mut().find(|(of, _)| *of == pass) {
                list.push_str(entry.line);
                list.push('\n');
            }
        }
        Passes {
            passes: lists,
            omitted,
        }
    }
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (id, rest) = line.split_once("; ")?;
        id.parse::<u32>().ok()?;
        let mut words = rest.splitn(3, ' ');
        let object = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self {
            line,
            object,
            what: words.next()?,
        })
    }

    /// Whether the entry is of a kind, or of one whose name continues this one, as `PUBLICATION TABLE` does.
    fn is(&self, kind: &str) -> bool {
        let rest = self.what.strip_prefix(kind);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }

    fn is_comment_on(&self, extension: &str) -> bool {
        let name = self.what.strip_prefix("COMMENT - EXTENSION ");
        name.is_some_and(|name| name.trim_end() == extension)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `pg_restore --list` of version 15 prints it.
    const LIST: &str = ";\n; Archive created at 2026-01-01 00:00:00 UTC\n;     dbname: crm\n;\n\n\
        5; 2615 16385 SCHEMA - extensions crm\n\
        2; 3079 16390 EXTENSION - pg_trgm \n\
        3450; 0 0 COMMENT - EXTENSION pg_trgm \n\
        215; 1259 16400 TABLE public lead crm\n\
        216; 1259 16410 TABLE public ACL crm\n\
        3440; 0 16400 TABLE DATA public lead crm\n\
        3301; 1259 16420 INDEX public lead_name crm\n\
        217; 1259 16430 MATERIALIZED VIEW public counted crm\n\
        3442; 0 16430 MATERIALIZED VIEW DATA public counted crm\n\
        3460; 0 0 ACL public TABLE lead crm\n\
        2070; 826 16440 DEFAULT ACL public DEFAULT PRIVILEGES FOR TABLES crm\n\
        3310; 3466 16450 EVENT TRIGGER - audit postgres\n\
        3311; 6104 16460 PUBLICATION - all_tables postgres\n\
        3312; 6106 16461 PUBLICATION TABLE public all_tables lead postgres\n";

    #[test]
    fn each_entry_is_restored_by_whom_it_takes() {
        let Passes { passes, omitted } = Contents::parse(LIST).passes(&[(2615, 16385)], &[]);
        let ids = passes.map(|(_, list)| {
            list.lines()
                .map(|line| line.split(';').next().unwrap().parse().unwrap())
                .collect::<Vec<u32>>()
        });
        assert_eq!(
            ids,
            [
                vec![215, 216, 3440, 3301, 217],
                vec![3450, 3460, 2070, 3311, 3312],
                vec![3442]
            ]
        );
        assert_eq!(omitted, ["EVENT TRIGGER - audit postgres"]);
        let without = ["pg_trgm".to_owned()];
        let Passes { passes, .. } = Contents::parse(LIST).passes(&[], &without);
        assert!(!passes[1].1.contains("pg_trgm"), "nothing is there to comment on");
    }
}
