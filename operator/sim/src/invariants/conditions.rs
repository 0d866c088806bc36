//! What statuses say: conditions, and what they call retired.

use super::{Checker, Observations, changed};
use crate::store::Objects;
use fairway_crds::condition::{
    BACKUP_OVERDUE, BAKING, DIVERGED_FROM_SPEC, FINAL_BACKUP_TAKEN, READY, RECONCILING, SCHEMA_AHEAD,
    STALLED, SUCCEEDED, WARNED,
};
use fairway_plan::labels;
use fairway_plan::readings::has_finished;
use fairway_plan::release::IS_RETIRED;
use fairway_plan::release::history::has_ended;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use std::collections::BTreeSet;

/// Types of the conditions that a kind always has, and of those that it has only while they are true.
type Types = (&'static [&'static str], &'static [&'static str]);
const OF_APP: Types = (
    &[READY],
    &[
        RECONCILING,
        STALLED,
        BAKING,
        DIVERGED_FROM_SPEC,
        SCHEMA_AHEAD,
        BACKUP_OVERDUE,
        FINAL_BACKUP_TAKEN,
    ],
);
const OF_RELEASE: Types = (
    &[SUCCEEDED, READY],
    &[RECONCILING, STALLED, BAKING, SCHEMA_AHEAD, WARNED],
);
/// Bounded work: a Migration, a Backup, a Restore.
const OF_WORK: Types = (&[SUCCEEDED, READY], &[RECONCILING, STALLED]);

/// What the status of an object says of it, as far as all our kinds have it.
struct Described {
    name: String,
    generation: Option<i64>,
    conditions: Vec<Condition>,
    types: Types,
    written: Written,
}

/// When the conditions of a status were written.
enum Written {
    /// By the write that set the observed generation: planners write all conditions then.
    WithTheStatus,
    /// By that write, or before it. A Release that has ended or is being deleted keeps its conditions, and only its
    /// observed generation goes on: Kubernetes counts a deletion as a generation.
    Earlier,
}

impl Checker {
    /// Conditions are complete from the first write on, `Reconciling` and `Stalled` are never true together, and each has
    /// the generation of the status.
    pub(super) fn conditions(&mut self, before: &Objects, after: &Objects) {
        for (name, app) in changed(&before.apps, &after.apps) {
            let status = app.status.clone().unwrap_or_default();
            self.described(&Described {
                name: format!("App {name}"),
                generation: status.observed_generation,
                conditions: status.conditions,
                types: OF_APP,
                written: Written::WithTheStatus,
            });
        }
        for (name, release) in changed(&before.releases, &after.releases) {
            let status = release.status.clone().unwrap_or_default();
            self.described(&Described {
                name: format!("Release {name}"),
                generation: status.observed_generation,
                conditions: status.conditions,
                types: OF_RELEASE,
                written: match has_ended(release) || release.metadata.deletion_timestamp.is_some() {
                    true => Written::Earlier,
                    false => Written::WithTheStatus,
                },
            });
        }
        for (name, migration) in changed(&before.migrations, &after.migrations) {
            let status = migration.status.clone().unwrap_or_default();
            self.described(&Described {
                name: format!("Migration {name}"),
                generation: status.observed_generation,
                conditions: status.conditions,
                types: OF_WORK,
                written: Written::WithTheStatus,
            });
        }
        for (name, backup) in changed(&before.backups, &after.backups) {
            let status = backup.status.clone().unwrap_or_default();
            self.described(&Described {
                name: format!("Backup {name}"),
                generation: status.observed_generation,
                conditions: status.conditions,
                types: OF_WORK,
                written: Written::WithTheStatus,
            });
        }
        for (name, restore) in changed(&before.restores, &after.restores) {
            let status = restore.status.clone().unwrap_or_default();
            self.described(&Described {
                name: format!("Restore {name}"),
                generation: status.observed_generation,
                conditions: status.conditions,
                types: OF_WORK,
                written: Written::WithTheStatus,
            });
        }
    }

    fn described(&mut self, described: &Described) {
        let Described {
            name,
            generation,
            conditions,
            types,
            written,
        } = described;
        // -1 until a controller has seen the object.
        let Some(generation) = generation.filter(|generation| *generation > 0) else {
            if !conditions.is_empty() {
                self.violated(format!("{name} has conditions of no observed generation"));
            }
            return;
        };
        for condition in conditions {
            let found = condition.observed_generation.unwrap_or_default();
            let holds = match written {
                Written::WithTheStatus => found == generation,
                Written::Earlier => (1..=generation).contains(&found),
            };
            if !holds {
                self.violated(format!(
                    "{name}: condition {} is of generation {found}, and the status of {generation}",
                    condition.type_
                ));
            }
        }
        self.complete(name, conditions, *types);
    }

    fn complete(&mut self, name: &str, conditions: &[Condition], expected: Types) {
        let types: BTreeSet<_> = conditions
            .iter()
            .map(|condition| condition.type_.as_str())
            .collect();
        let (always, passing) = expected;
        let is_known = |type_: &&str| always.contains(type_) || passing.contains(type_);
        if !always.iter().all(|type_| types.contains(type_)) || !types.iter().all(is_known) {
            self.violated(format!("{name} has the conditions {types:?}"));
        }
        let passing = conditions
            .iter()
            .filter(|condition| passing.contains(&&*condition.type_));
        for condition in passing.filter(|condition| condition.status != "True") {
            self.violated(format!("{name} has {} although it is not true", condition.type_));
        }
        let is_true = |type_: &str| {
            conditions
                .iter()
                .any(|condition| condition.type_ == type_ && condition.status == "True")
        };
        if is_true(RECONCILING) && is_true(STALLED) {
            self.violated(format!("{name} is reconciling and stalled at once"));
        }
        let lacks = |condition: &&Condition| condition.reason.is_empty() || condition.message.is_empty();
        if let Some(condition) = conditions.iter().find(lacks) {
            self.violated(format!(
                "{name}: condition {} lacks a reason or a message",
                condition.type_
            ));
        }
    }

    /// Nothing is called retired of which a pod is there.
    pub(super) fn retired(&mut self, before: &Objects, after: &Objects) {
        if self.observations == Observations::Stale {
            return;
        }
        for (name, release) in changed(&before.releases, &after.releases) {
            let messages = |objects: &Objects| -> BTreeSet<String> {
                let status = objects
                    .releases
                    .get(name)
                    .and_then(|release| release.status.clone());
                let conditions = status.map(|status| status.conditions).unwrap_or_default();
                conditions
                    .into_iter()
                    .map(|condition| condition.message)
                    .collect()
            };
            let old = messages(before);
            let news = messages(after)
                .into_iter()
                .filter(|message| !old.contains(message));
            for message in news {
                let Some((said, _)) = message.split_once(IS_RETIRED) else {
                    continue;
                };
                let retired = said.rsplit(' ').next().unwrap_or_default();
                let runs = after.pods.values().find(|pod| {
                    let of = |key: &str| pod.labels().get(key).map(String::as_str);
                    of(labels::APP) == Some(&*release.spec.app)
                        && of(labels::RELEASE) == Some(retired)
                        && of(labels::COMPONENT).is_some()
                        && !has_finished(pod)
                });
                if let Some(pod) = runs {
                    self.violated(format!(
                        "{retired} is called retired, but pod {} is there",
                        pod.name_any()
                    ));
                }
            }
        }
    }
}
