//! The task `prune`: the set of a backup that retention does not keep is removed from its store.
//!
//! What is removed is what an agent of this very Backup has written: its manifest says so by its seal. Where there is no
//! manifest, an earlier attempt may have removed it, and then only names by which agents store are removed.

use std::sync::Arc;

use fairway_protocol::{Failure, PruneOutcome, PruneReport, PruneTask};

use crate::{
    backup::manifest::{FILES, Manifest},
    environment::Environment,
    store::{self, End, Own, Removal, SetPath},
};

/// Most paths of other files that the report names.
const NAMED: usize = 2;

/// Removes the set, or what an earlier attempt has left of it.
pub(crate) async fn run(task: PruneTask, environment: &Environment) -> PruneReport {
    prune(&task, environment).await.unwrap_or_else(not_run)
}

/// The answer to a task that was not done.
pub(crate) fn not_run(failure: Failure) -> PruneReport {
    PruneReport {
        outcome: None,
        objects: 0,
        bytes: 0,
        until: None,
        note: None,
        failure: Some(failure),
    }
}

async fn prune(task: &PruneTask, environment: &Environment) -> Result<PruneReport, Failure> {
    let set = SetPath::parse(&task.set)?;
    if !has_own_name(task) {
        let removal = Removal {
            objects: 0,
            bytes: 0,
            foreign: Vec::new(),
            end: End::NotOwn,
        };
        return Ok(report(task, removal));
    }
    let store = store::open(&task.store, environment)?;
    let key = task.backup_uid.clone();
    let own = Own {
        files: FILES,
        has_sealed: Arc::new(move |text: &[u8]| Manifest::is_of(text, &key)),
    };
    let removal = store.remove(&set, &own).await?;
    tracing::info!("{} files or objects were removed", removal.objects);
    Ok(report(task, removal))
}

/// Whether the path of the set ends with a part of the Backup's UID, as an agent of this Backup would have it. A Backup that was
/// restored with the cluster has another UID than the one that wrote the set.
fn has_own_name(task: &PruneTask) -> bool {
    let uid = &task.backup_uid;
    let part = uid.get(..8).unwrap_or(uid);
    !part.is_empty() && task.set.ends_with(&format!("-{part}"))
}

fn report(task: &PruneTask, removal: Removal) -> PruneReport {
    let Removal {
        objects,
        bytes,
        foreign,
        end,
    } = removal;
    let (outcome, why, until) = match end {
        End::Removed if objects == 0 => (
            PruneOutcome::Removed,
            Some(format!(
                "Nothing of the set was in {}: an earlier attempt has removed it, or this is not the store to which it was \
                 written.",
                task.store
            )),
            None,
        ),
        End::Removed => (PruneOutcome::Removed, None, None),
        End::Hidden => (
            PruneOutcome::Hidden,
            Some(format!(
                "The backup store, {}, keeps versions of what is deleted, so the bytes are there until a rule of its \
                 lifecycle removes them.",
                task.store
            )),
            None,
        ),
        End::Refused { object, until } => (
            PruneOutcome::Retained,
            Some(format!(
                "The backup store, {}, refuses to delete {object}.",
                task.store
            )),
            until,
        ),
        End::NotOwn => (
            PruneOutcome::Retained,
            Some(format!(
                "The manifest of {} in {} cannot be read, or was not written by this Backup, so nothing was removed. Look at \
                 the set, and remove it by hand if nobody needs it.",
                task.set, task.store
            )),
            None,
        ),
    };
    let sentences: Vec<_> = why.into_iter().chain(left(&foreign)).collect();
    PruneReport {
        outcome: Some(outcome),
        objects,
        bytes,
        until,
        note: (!sentences.is_empty()).then(|| sentences.join(" ")),
        failure: None,
    }
}

/// That something is left which no agent wrote.
fn left(foreign: &[String]) -> Option<String> {
    let named = foreign.get(..foreign.len().min(NAMED))?.join(", ");
    let more = foreign.len().saturating_sub(NAMED);
    match (foreign.len(), more) {
        (0, _) => None,
        (_, 0) => Some(format!("{named} stays: nothing shows that this Backup wrote it.")),
        _ => Some(format!(
            "{named} and {more} more stay: nothing shows that this Backup wrote them."
        )),
    }
}

#[cfg(test)]
mod tests {
    use fairway_protocol::Requester;

    use super::*;

    fn task(set: &str, uid: &str) -> PruneTask {
        PruneTask {
            requester: Requester {
                namespace: "shop".into(),
                app: "crm".into(),
                release: String::new(),
            },
            store: serde_json::from_value(serde_json::json!({"volume": {"claimName": "backups"}}))
                .expect("a store"),
            set: set.into(),
            backup_uid: uid.into(),
        }
    }

    #[test]
    fn a_path_of_another_backup_is_known_by_its_end() {
        let uid = "1a2b3c4d-0000-4000-8000-000000000000";
        assert!(has_own_name(&task("shop/crm/crm-1-1a2b3c4d", uid)));
        for (set, uid) in [
            ("shop/crm", uid),
            ("shop/crm/crm-1-99999999", uid),
            ("shop/crm/crm-1-", ""),
        ] {
            assert!(!has_own_name(&task(set, uid)), "{set}");
        }
    }

    #[test]
    fn what_stays_is_named_but_not_all_of_it() {
        let left = |names: &[&str]| left(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(left(&[]), None);
        assert_eq!(
            left(&["a"]).as_deref(),
            Some("a stays: nothing shows that this Backup wrote it.")
        );
        assert_eq!(
            left(&["a", "b", "c"]).as_deref(),
            Some("a, b and 1 more stay: nothing shows that this Backup wrote them.")
        );
    }
}
