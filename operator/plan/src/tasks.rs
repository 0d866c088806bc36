//! The tasks of the agent, one row each. Labels, names, owners, cleanup and the readings follow from the table; a new
//! task is its file in the agent, its pod in [`crate::build::agent`], and its row here.

use crate::labels::{self, Work};
use crate::object::Kind;
use crate::readings::owned_by;
use kube::core::ObjectMeta;

/// What a task runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A Job with one pod.
    Job,
    /// A pod of its own.
    Pod,
}

impl Form {
    /// Kind of the object that runs the task.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Job => Kind::Job,
            Self::Pod => Kind::Pod,
        }
    }
}

/// Who owns the Job or pod of a task, so that the garbage collector removes it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The object for which the work is done.
    WorkFor,
    /// Nobody: it outlives its App, and the run ID in its label says which run it belongs to.
    Nobody,
}

/// When the Job or pod of an attempt is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// By the planner, when the attempt has failed; after success by its owner's end.
    AtOnce,
    /// By the planner, when the next attempt begins or the work has ended.
    WithNext,
    /// By the planner, when the release needs no probes any more.
    WhenUnused,
}

/// One task of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Name of the task, as the agent and the documents write it.
    pub name: &'static str,
    /// Value of the label `fairway.dev/work` on its Job or pod.
    pub work: Work,
    /// What it runs as.
    pub form: Form,
    /// Kind of the object that the label `fairway.dev/work-for` names.
    pub work_for: Kind,
    /// Part of the name of its Job or pod: `<work-for>-<suffix>-<attempt>`.
    pub suffix: &'static str,
    /// Who owns its Job or pod.
    pub owner: Owner,
    /// When its Job or pod is removed.
    pub removal: Removal,
    /// The image in which the agent runs, for the documents.
    pub runs_in: &'static str,
    /// What it answers, for the documents.
    pub answers: &'static str,
    /// Whether it may be repeated and why, for the documents.
    pub repeat: &'static str,
}

/// Pulls the images of a release, to learn their digests.
pub const PIN: Task = Task {
    name: "pin",
    work: Work::Pin,
    form: Form::Pod,
    work_for: Kind::Release,
    suffix: "pin",
    owner: Owner::WorkFor,
    removal: Removal::AtOnce,
    runs_in: "the application's images",
    answers: "nothing: the kubelet reports the digests",
    repeat: "yes",
};

/// Checks the environment of a release.
pub const PREFLIGHT: Task = Task {
    name: "preflight",
    work: Work::Preflight,
    form: Form::Job,
    work_for: Kind::Release,
    suffix: "check",
    owner: Owner::WorkFor,
    removal: Removal::AtOnce,
    runs_in: "`database.image`",
    answers: "the checks, or the first failure",
    repeat: "yes",
};

/// Makes a backup and reads it back.
pub const BACKUP: Task = Task {
    name: "backup",
    work: Work::Backup,
    form: Form::Job,
    work_for: Kind::Backup,
    suffix: "backup",
    owner: Owner::WorkFor,
    removal: Removal::WithNext,
    runs_in: "`database.image`",
    answers: "evidence, or a failure",
    repeat: "yes: a set with a manifest is proven again, one without is removed and taken again",
};

/// Removes the set of a backup that retention does not keep.
pub const PRUNE: Task = Task {
    name: "prune",
    work: Work::Prune,
    form: Form::Job,
    work_for: Kind::Backup,
    suffix: "prune",
    owner: Owner::WorkFor,
    removal: Removal::WithNext,
    runs_in: "Fairway's image",
    answers: "what has become of the set",
    repeat: "yes: it goes on with what is left of the set",
};

/// Migrates by a command.
pub const MIGRATE: Task = Task {
    name: "migrate",
    work: Work::Migrate,
    form: Form::Job,
    work_for: Kind::Migration,
    suffix: "run",
    owner: Owner::Nobody,
    removal: Removal::WithNext,
    runs_in: "the application's image, as the parent of the command",
    answers: "an outcome; `Unknown` is settled",
    repeat: "no: ledger row and lock",
};

/// Guards an application that migrates when it starts. Label, name and owner are those of [`MIGRATE`]: both run a
/// Migration, and one Migration has one of the two.
pub const GUARD: Task = Task {
    name: "guard",
    work: Work::Migrate,
    form: Form::Pod,
    work_for: Kind::Migration,
    suffix: "run",
    owner: Owner::Nobody,
    removal: Removal::WithNext,
    runs_in: "Fairway's image, as a native sidecar of the application (`onStart`)",
    answers: "an outcome; `Unknown` and `Undecided` are settled",
    repeat: "no: ledger row and lock",
};

/// Settles a migration that was cut off.
pub const SETTLE: Task = Task {
    name: "settle",
    work: Work::Settle,
    form: Form::Job,
    work_for: Kind::Migration,
    suffix: "settle",
    owner: Owner::Nobody,
    removal: Removal::WithNext,
    runs_in: "Fairway's image",
    answers: "an outcome; after `Undecided` it is repeated",
    repeat: "yes",
};

/// Makes health requests that need a Secret.
pub const PROBE: Task = Task {
    name: "probe",
    work: Work::Probe,
    form: Form::Pod,
    work_for: Kind::Release,
    suffix: "probe",
    owner: Owner::WorkFor,
    removal: Removal::WhenUnused,
    runs_in: "Fairway's image",
    answers: "each request of the operator, over HTTP",
    repeat: "yes",
};

/// Restores a backup, step by step.
pub const RESTORE: Task = Task {
    name: "restore",
    work: Work::Restore,
    form: Form::Job,
    work_for: Kind::Restore,
    suffix: "restore",
    owner: Owner::WorkFor,
    removal: Removal::WithNext,
    runs_in: "`database.image`",
    answers: "the restored database and what it would lose, or what it has replaced",
    repeat: "yes: what a database is stands in a comment on it",
};

/// All tasks, those of a release in its order.
pub const TASKS: [&Task; 9] = [
    &PIN, &PREFLIGHT, &BACKUP, &PRUNE, &MIGRATE, &GUARD, &SETTLE, &PROBE, &RESTORE,
];

impl Task {
    /// Name of the Job or pod of an attempt.
    pub fn child(&self, work_for: &str, attempt: u32) -> String {
        format!("{work_for}-{}-{attempt}", self.suffix)
    }

    /// Whether nobody owns its Job or pod.
    pub const fn is_unowned(&self) -> bool {
        matches!(self.owner, Owner::Nobody)
    }
}

/// What tells the Job or pod of some work from one that an earlier object of the same name left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity<'a> {
    /// UID of the object that owns the Job or pod, for [`Owner::WorkFor`].
    OwnerUid(&'a str),
    /// Run ID in the label of the Job or pod, for [`Owner::Nobody`].
    RunId(&'a str),
}

impl Identity<'_> {
    /// Whether the Job or pod was created for the work with this identity.
    pub fn matches(self, meta: &ObjectMeta) -> bool {
        match self {
            Self::OwnerUid(uid) => owned_by(meta.owner_references.as_deref().unwrap_or_default(), uid),
            Self::RunId(id) => label(meta, labels::RUN_ID) == Some(id),
        }
    }
}

/// Whether a Job or pod does work for an object of that kind.
pub fn is_for(meta: &ObjectMeta, kind: Kind) -> bool {
    TASKS.iter().any(|task| task.work_for == kind && does(meta, task))
}

/// Whether a Job or pod does work for the object of that kind and name.
pub fn is_for_object(meta: &ObjectMeta, kind: Kind, name: &str) -> bool {
    is_for(meta, kind) && label(meta, labels::WORK_FOR) == Some(name)
}

/// Whether a Job or pod does the work of that task.
pub fn does(meta: &ObjectMeta, task: &Task) -> bool {
    label(meta, labels::WORK) == Some(task.work.as_str())
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_have_the_table_of_tasks() {
        let rows = TASKS.map(|task| {
            format!(
                "| {} | {} | {} | {} |\n",
                task.name, task.runs_in, task.answers, task.repeat
            )
        });
        let table = format!(
            "| task | runs in | answers | may be repeated |\n|---|---|---|---|\n{}",
            rows.concat()
        );
        let document = include_str!("../../ARCHITECTURE.md");
        assert!(
            document.contains(&table),
            "operator/ARCHITECTURE.md should have:\n{table}"
        );
    }

    #[test]
    fn a_label_names_the_work_of_one_kind() {
        for task in TASKS {
            let others = TASKS.iter().filter(|other| other.work == task.work);
            assert!(
                others.clone().all(|other| other.work_for == task.work_for),
                "{}",
                task.name
            );
        }
    }

    #[test]
    fn a_guard_has_the_label_the_name_and_the_owner_of_a_migration() {
        let shared = |task: &Task| (task.work, task.work_for, task.suffix, task.owner, task.removal);
        assert_eq!(shared(&GUARD), shared(&MIGRATE));
    }
}
