//! What must hold when nothing moves any more and nothing is timed: every wait has come to its end, or is a user's who
//! reads so.

use super::Checker;
use crate::cluster::Cluster;
use crate::store::Objects;
use crate::traffic::destination;
use fairway_crds::condition::{READY, RECONCILING, STALLED, SUCCEEDED};
use fairway_crds::{Reason, Release};
use fairway_engine::kinds::Kind;
use fairway_plan::conditions::reason_of;
use fairway_plan::labels;
use fairway_plan::readings::{is_ready, replicas_of};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An object of Fairway's that ends, as far as it matters here.
struct Work<'a> {
    what: String,
    app: &'a str,
    kind: Kind,
    has_ended: bool,
    conditions: &'a [Condition],
}

impl Work<'_> {
    fn is(&self, type_: &str) -> bool {
        is_true(self.conditions, type_)
    }

    /// The condition that says how it stands.
    fn succeeded(&self) -> Option<&Condition> {
        find(self.conditions, SUCCEEDED)
    }
}

fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// Every Release, Migration, Backup and Restore that is not being deleted.
fn work(objects: &Objects) -> Vec<Work<'_>> {
    let mut all = Vec::new();
    macro_rules! add {
        ($kind:ident, $store:ident) => {
            for (name, object) in &objects.$store {
                if object.metadata.deletion_timestamp.is_some() {
                    continue;
                }
                let status = object.status.as_ref();
                all.push(Work {
                    what: format!("{} {name}", Kind::$kind.as_str()),
                    app: &object.spec.app,
                    kind: Kind::$kind,
                    has_ended: status.is_some_and(|status| status.outcome.is_some()),
                    conditions: status.map(|status| &*status.conditions).unwrap_or_default(),
                });
            }
        };
    }
    add!(Release, releases);
    add!(Migration, migrations);
    add!(Backup, backups);
    add!(Restore, restores);
    all
}

/// Whether anything is open that moves on by itself, sooner or later: it waits for no user, and for no other object that does.
pub(crate) fn is_under_way(objects: &Objects) -> bool {
    let waits = |work: &Work| {
        let reason = work.succeeded().and_then(reason_of);
        let waits = [
            Reason::Suspended,
            Reason::WaitingForRelease,
            Reason::WaitingForMigration,
            Reason::WaitingForRestore,
        ];
        reason.is_some_and(|reason| waits.contains(&reason))
    };
    let mut open = work(objects).into_iter().filter(|work| !work.has_ended);
    open.any(|work| !work.is(STALLED) && !waits(&work))
}

impl Checker {
    /// Checks a state in which nothing moves and no timer runs. `pending` are the writes that would follow if everything
    /// was reconciled now: each would be a wake that was missed.
    pub fn at_rest(&mut self, cluster: &Cluster, pending: &[String]) {
        for write in pending {
            self.violated(format!("nothing wakes what is due: {write}"));
        }
        let objects = cluster.objects();
        let work = work(objects);
        for open in work.iter().filter(|work| !work.has_ended) {
            self.ends(objects, &work, open);
        }
        for (name, app) in &objects.apps {
            let conditions = app.status.as_ref().map(|status| &*status.conditions);
            let conditions = conditions.unwrap_or_default();
            if app.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if find(conditions, READY).is_none() || is_true(conditions, RECONCILING) {
                let said = find(conditions, READY).map_or("nothing", |condition| &condition.message);
                self.violated(format!("App {name} waits without an end: {said}"));
            }
            self.moments(&format!("App {name}"), conditions, cluster.now);
        }
        for open in work.iter().filter(|work| !work.has_ended) {
            self.moments(&open.what, open.conditions, cluster.now);
        }
        self.served(cluster);
    }

    /// An open object waits for a user who reads so, for a resumption, or for another one that is open.
    fn ends(&mut self, objects: &Objects, all: &[Work], open: &Work) {
        let is_held = objects.apps.get(open.app).is_some_and(|app| app.spec.suspend);
        let succeeded = open.succeeded();
        let reason = succeeded.and_then(reason_of);
        let waits_for: &[Kind] = match reason {
            Some(Reason::WaitingForRelease) => &[Kind::Release],
            Some(Reason::WaitingForBackup | Reason::WaitingForSource) => &[Kind::Backup],
            Some(Reason::WaitingForRestore) => &[Kind::Restore],
            Some(Reason::WaitingForMigration) => &[Kind::Release, Kind::Migration],
            _ => &[],
        };
        let other_is_open = all.iter().any(|other| {
            waits_for.contains(&other.kind)
                && other.app == open.app
                && other.what != open.what
                && !other.has_ended
        });
        if open.is(STALLED) || other_is_open || is_held && reason == Some(Reason::Suspended) {
            return;
        }
        let (reason, said) = succeeded.map_or(("", "nothing"), |condition| {
            (condition.reason.as_str(), condition.message.as_str())
        });
        self.violated(format!(
            "{} waits without an end, and no user is to act: {reason}: {said}",
            open.what
        ));
    }

    /// No message announces what should have happened by a moment that has passed.
    fn moments(&mut self, what: &str, conditions: &[Condition], now: Timestamp) {
        for condition in conditions {
            for (at, _) in condition.message.match_indices("until ") {
                let moment = condition.message.get(at + 6..at + 26);
                let moment = moment.and_then(|moment| moment.parse::<Timestamp>().ok());
                if moment.is_some_and(|moment| moment < now) {
                    self.violated(format!(
                        "{what} waits until a moment that has passed: {}",
                        condition.message
                    ));
                }
            }
        }
    }

    /// A Service that what is live serves has a ready pod if its Deployment could have one: what its pods do is not the
    /// operator's business, but how many it asks for is.
    fn served(&mut self, cluster: &Cluster) {
        let objects = cluster.objects();
        let rules = &cluster.rules;
        if rules.deployments_are_kept || !rules.refused_requests.is_empty() {
            return;
        }
        for app in objects.apps.values() {
            let live = app.status.as_ref().and_then(|status| status.live.as_ref());
            let Some(snapshot) = live.and_then(|live| self.snapshots.get(&live.release)).cloned() else {
                continue;
            };
            // Nobody looks after what a Release has started that was deleted; the App says so.
            let is_kept = live.is_some_and(|live| objects.releases.contains_key(&live.release));
            if app.metadata.deletion_timestamp.is_some() || !is_kept {
                continue;
            }
            // What was stopped for a migration stays stopped until a user has said what became of the schema.
            let mut releases = objects.releases.values();
            if releases.any(|release| release.spec.app == app.name_any() && is_unresolved(release)) {
                continue;
            }
            for serves in snapshot
                .components
                .iter()
                .filter_map(|component| component.serves.as_ref())
            {
                let Some(service) = objects.services.get(&serves.service) else {
                    continue;
                };
                if rules.foreign_services.contains(&serves.service) || has_ready_pod(objects, service) {
                    continue;
                }
                if let Some(release) = destination(service)
                    && !may_have_pods(objects, service)
                {
                    self.violated(format!(
                        "Service {} selects {release}, which is asked for no pod",
                        serves.service
                    ));
                }
            }
        }
    }
}

/// Whether a release waits for a user's word on its migration.
fn is_unresolved(release: &Release) -> bool {
    let status = release.status.as_ref();
    status.is_some_and(|status| {
        let mut conditions = status.conditions.iter();
        status.outcome.is_none()
            && conditions.any(|condition| reason_of(condition) == Some(Reason::MigrationUnresolved))
    })
}

fn selector(service: &Service) -> BTreeMap<String, String> {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.selector.clone()).unwrap_or_default()
}

fn has_ready_pod(objects: &Objects, service: &Service) -> bool {
    let selector = selector(service);
    objects.pods.values().any(|pod| {
        is_ready(pod)
            && pod.metadata.deletion_timestamp.is_none()
            && selector
                .iter()
                .all(|(key, value)| pod.labels().get(key) == Some(value))
    })
}

/// Whether the Deployment whose pods a Service selects is asked for any.
fn may_have_pods(objects: &Objects, service: &Service) -> bool {
    let selector = selector(service);
    let ours = [labels::APP, labels::COMPONENT, labels::RELEASE];
    objects.deployments.values().any(|deployment: &Arc<Deployment>| {
        replicas_of(deployment) > 0
            && ours
                .iter()
                .all(|key| deployment.labels().get(*key) == selector.get(*key))
    })
}
