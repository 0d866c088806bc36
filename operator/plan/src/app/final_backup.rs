//! The final backup of an App, which a user asks for by an annotation before the App is deleted.
//!
//! What has been asked for is recorded with the name of the Backup, which follows from the request: it is created once, and not
//! again when a user deletes it.

use crate::build::control;
use crate::conditions::succeeded_message;
use crate::kubectl;
use crate::message::{self, moment};
use crate::names;
use crate::observed::{AppObserved, refusal};
use crate::proof::{is_verified, taken_at};
use crate::{Object, Step};
use fairway_crds::Reason;
use fairway_crds::app::{AppStatus, annotation};
use fairway_crds::backup::BackupOutcome;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

/// For how long a final backup is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);

/// What a pass of an App does about its final backup, and what it says of it.
#[derive(Debug, Default)]
pub(super) struct FinalBackup {
    /// The Backup to create.
    pub(super) step: Option<Step>,
    /// Why it is not taken, which a user has to fix.
    pub(super) trouble: Option<(Reason, String)>,
    /// That it is taken.
    pub(super) taken: Option<String>,
}

/// Decides about the final backup, and records that it was asked for.
pub(super) fn plan(observed: &AppObserved, status: &mut AppStatus, now: Timestamp) -> FinalBackup {
    let app = &observed.app;
    let asked = app.annotations().get(annotation::FINAL_BACKUP);
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else {
        status.final_backup = None;
        return FinalBackup::default();
    };
    let namespace = app.metadata.namespace.as_deref().unwrap_or_default();
    let name = names::final_backup(&app.name_any(), &app.uid().unwrap_or_default(), asked);
    let found = observed.backups.iter().find(|backup| backup.name_any() == name);
    let trouble = |reason, message: &[&str]| FinalBackup {
        trouble: Some((reason, message::sentences(message))),
        ..FinalBackup::default()
    };
    let again = || {
        let command = kubectl::final_backup(namespace, &app.name_any());
        format!("To ask for it again: {command}")
    };
    if let Some(backup) = found {
        status.final_backup = Some(name.clone());
        let found = backup.status.clone().unwrap_or_default();
        if is_verified(backup) {
            return FinalBackup {
                taken: Some(taken(&name, backup.spec.keep_until, taken_at(backup))),
                ..FinalBackup::default()
            };
        }
        let failed = found.outcome == Some(BackupOutcome::Failed);
        let why = succeeded_message(&found.conditions).unwrap_or_default();
        return match failed {
            true => trouble(
                Reason::BackupFailed,
                &[&format!("The final Backup {name} failed."), why, &again()],
            ),
            false => FinalBackup::default(),
        };
    }
    if status.final_backup.as_ref() == Some(&name) {
        // A user has deleted it.
        return FinalBackup::default();
    }
    if app.spec.backup.is_none() {
        let lacks = format!(
            "App {} has no spec.backup, so no final backup can be taken.",
            app.name_any()
        );
        let fix = format!("Add it, or remove the annotation {}.", annotation::FINAL_BACKUP);
        return trouble(Reason::AppMissing, &[&lacks, &fix]);
    }
    let until = now.saturating_add(KEPT).unwrap_or(Timestamp::MAX);
    let backup = control::final_backup(app, &name, message::to_seconds(until));
    let step = Step::Create(Box::new(Object::Backup(backup)));
    if let Some(refused) = refusal(&observed.refused, &step) {
        return trouble(Reason::WriteRefused, &[&refused.retried(&step)]);
    }
    status.final_backup = Some(name);
    FinalBackup {
        step: Some(step),
        ..FinalBackup::default()
    }
}

fn taken(name: &str, until: Option<Timestamp>, at: Option<Timestamp>) -> String {
    let of = at.map(|at| format!(" of {}", moment(at))).unwrap_or_default();
    let until = until.map(|until| format!("It is to be kept to {}.", moment(until)));
    let verified = format!("Backup {name}{of} is verified.");
    let until = until.unwrap_or_default();
    message::sentences([&*verified, &until, "The App may be deleted."])
}

#[cfg(test)]
mod tests {
    use crate::app;
    use crate::bench;
    use crate::observed::AppObserved;
    use crate::{Object, Step};
    use fairway_crds::app::annotation;
    use fairway_crds::condition::{FINAL_BACKUP_TAKEN, STALLED};
    use fairway_crds::{App, Backup};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
    use kube::ResourceExt;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    struct Story {
        app: App,
        backups: Vec<Backup>,
        now: Timestamp,
    }

    impl Story {
        fn new() -> Self {
            let mut app = bench::app();
            app.metadata.generation = Some(1);
            Self {
                app,
                backups: Vec::new(),
                now: "2026-01-01T12:00:00Z".parse().unwrap(),
            }
        }

        fn ask(&mut self, token: &str) {
            let annotations = self.app.annotations_mut();
            annotations.insert(annotation::FINAL_BACKUP.to_owned(), token.to_owned());
        }

        /// One pass, whose status is lost if `crashes`. Returns how many Backups it created.
        fn pass(&mut self, crashes: bool) -> usize {
            let observed = AppObserved {
                app: Arc::new(self.app.clone()),
                releases: Vec::new(),
                snapshots: BTreeMap::new(),
                deployments: Vec::new(),
                pods: Vec::new(),
                migrations: Vec::new(),
                backups: self.backups.iter().cloned().map(Arc::new).collect(),
                refused: BTreeMap::new(),
            };
            let decision = app::plan(&observed, &bench::settings(), self.now);
            let before = self.backups.len();
            for step in decision.steps {
                if let Step::Create(object) = step
                    && let Object::Backup(backup) = *object
                {
                    self.backups.push(backup);
                }
            }
            if !crashes {
                self.app.status = Some(decision.status);
            }
            self.backups.len() - before
        }

        fn end(&mut self, outcome: &str) {
            let status: Value = json!({
                "outcome": outcome, "level": "Decoded", "takenAt": "2026-01-01T12:00:01Z",
                "attempts": {"current": 1, "since": "2026-01-01T12:00:01Z"},
                "conditions": [{
                    "type": "Succeeded", "status": "True", "reason": "x", "message": "The store is full.",
                    "lastTransitionTime": "2026-01-01T12:00:05Z",
                }],
            });
            self.backups[0].status = Some(serde_json::from_value(status).unwrap());
        }

        fn condition(&self, type_: &str) -> Option<&Condition> {
            let mut conditions = self.app.status.as_ref().unwrap().conditions.iter();
            conditions.find(|condition| condition.type_ == type_)
        }
    }

    #[test]
    fn it_is_taken_once_for_a_request_and_the_app_says_when_it_may_go() {
        let mut story = Story::new();
        assert_eq!(story.pass(false), 0, "nobody has asked");
        story.ask("1767268800");
        assert_eq!(story.pass(true), 1);
        assert_eq!(story.pass(false), 0, "it was created before the crash");
        assert_eq!(story.condition(FINAL_BACKUP_TAKEN), None);
        let backup = &story.backups[0];
        assert!(
            backup.name_any().starts_with("crm-final-"),
            "{}",
            backup.name_any()
        );
        assert_eq!(
            backup.spec.keep_until,
            Some("2026-04-01T12:00:00Z".parse().unwrap())
        );
        story.end("Succeeded");
        story.pass(false);
        let taken = story.condition(FINAL_BACKUP_TAKEN).unwrap();
        assert_eq!(
            taken.message,
            format!(
                "Backup {} of 2026-01-01T12:00:01Z is verified. It is to be kept to 2026-04-01T12:00:00Z. The App may be deleted.",
                story.backups[0].name_any()
            )
        );
        story.backups.clear();
        assert_eq!(story.pass(false), 0, "a user has deleted it");
        story.ask("another");
        assert_eq!(story.pass(false), 1);
        story.app.metadata.annotations = None;
        assert_eq!(story.pass(false), 0);
        assert_eq!(story.app.status.as_ref().unwrap().final_backup, None);
    }

    #[test]
    fn one_that_fails_says_why_and_how_to_ask_again() {
        let mut story = Story::new();
        story.ask("1");
        story.pass(false);
        story.end("Failed");
        // A release is under way from the first pass on, and says so.
        story.app.spec.components[0].template["spec"]["containers"][0]
            .as_object_mut()
            .unwrap()
            .remove("image");
        story.app.status = None;
        story.pass(false);
        let stalled = story.condition(STALLED).unwrap();
        assert_eq!(stalled.reason, "BackupFailed");
        assert!(
            stalled
                .message
                .contains("failed. The store is full. To ask for it again: kubectl -n shop annotate app crm"),
            "{}",
            stalled.message
        );
    }
}
