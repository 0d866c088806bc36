//! Who has to look at a change, by the rules of the operator's caches: releases that have ended look at their own
//! changes and their App's, the one that serves or is desired at all of them.

use super::operator::Work;
use super::store::{Objects, Shelf, Stored};
use crate::labels;
use crate::release::history::has_ended;
use kube::ResourceExt;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What has changed between two moments.
#[derive(Default)]
struct Changes {
    /// Kind and name.
    objects: BTreeSet<(&'static str, String)>,
    /// The Migrations and Backups that changed Jobs and pods work for.
    work_for: BTreeSet<String>,
}

impl Changes {
    fn note<T: Stored>(&mut self, before: &Objects, after: &Objects) {
        let (old, new): (&Shelf<T>, &Shelf<T>) = (T::shelf(before), T::shelf(after));
        let differs = |name: &String| match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
            (old, new) => old.is_some() || new.is_some(),
        };
        for name in old.keys().chain(new.keys()).filter(|name| differs(name)) {
            self.objects.insert((super::store::kind_of::<T>(), name.clone()));
            let object = new.get(name).or(old.get(name));
            let work_for = object.and_then(|object| object.labels().get(labels::WORK_FOR));
            self.work_for.extend(work_for.cloned());
        }
    }

    fn of(&self, kind: &'static str) -> bool {
        self.objects.iter().any(|(found, _)| *found == kind)
    }

    fn has(&self, kind: &'static str, name: &str) -> bool {
        self.objects.contains(&(kind, name.to_owned()))
    }
}

/// Everything that looks at what has changed.
pub(super) fn touched(before: &Objects, after: &Objects) -> BTreeSet<Work> {
    let mut changes = Changes::default();
    changes.note::<fairway_crds::App>(before, after);
    changes.note::<fairway_crds::Release>(before, after);
    changes.note::<fairway_crds::Migration>(before, after);
    changes.note::<fairway_crds::Backup>(before, after);
    changes.note::<k8s_openapi::api::apps::v1::ControllerRevision>(before, after);
    changes.note::<k8s_openapi::api::apps::v1::Deployment>(before, after);
    changes.note::<k8s_openapi::api::core::v1::Service>(before, after);
    changes.note::<k8s_openapi::api::batch::v1::Job>(before, after);
    changes.note::<k8s_openapi::api::core::v1::Pod>(before, after);
    changes.note::<k8s_openapi::api::discovery::v1::EndpointSlice>(before, after);

    let frames = changes.of("App") || changes.of("Release") || changes.of("ControllerRevision");
    let statuses = || after.apps.values().filter_map(|app| app.status.as_ref());
    let matters = |name: &str| {
        statuses().any(|status| {
            status.desired.as_deref() == Some(name)
                || status.live.as_ref().is_some_and(|live| live.release == name)
        })
    };
    let releases = after.releases.iter().filter(|(name, release)| {
        !has_ended(release) || matters(name) || changes.of("App") || changes.has("Release", name)
    });
    let migrations = after.migrations.iter().filter(|(name, migration)| {
        let is_open = migration
            .status
            .as_ref()
            .is_none_or(|status| status.outcome.is_none());
        changes.has("Migration", name)
            || changes.has("Release", name)
            || changes.work_for.contains(*name)
            || frames && is_open
    });
    let backups = after.backups.iter().filter(|(name, backup)| {
        let is_open = backup
            .status
            .as_ref()
            .is_none_or(|status| status.outcome.is_none());
        changes.has("Backup", name) || changes.work_for.contains(*name) || frames && is_open
    });
    let apps = after.apps.keys().map(|name| Work::App(name.clone()));
    apps.chain(releases.map(|(name, _)| Work::Release(name.clone())))
        .chain(migrations.map(|(name, _)| Work::Migration(name.clone())))
        .chain(backups.map(|(name, _)| Work::Backup(name.clone())))
        .collect()
}
