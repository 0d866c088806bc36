//! What the Release's planner gets to see.

use super::{Observe, Scope, stays};
use crate::caches::Kept;
use crate::key::NamespacedName;
use crate::kinds::{EndpointSlice, Release};
use crate::lookups::{Lookup, LookupResult};
use crate::state::State;
use fairway_crds::release::MilestoneKind;
use fairway_plan::object::Kind;
use fairway_plan::observed::{ProbeTarget, ReleaseObserved, Settings};
use fairway_plan::readings::{SERVICE_NAME, is_foreign, is_legacy};
use fairway_plan::release::claims;
use fairway_plan::release::history::{happened, has_begun, serves};
use fairway_plan::snapshot::Snapshot;
use fairway_plan::{ObjectRef, Step};
use kube::ResourceExt;
use kube::core::Selector;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Observe for Release {
    fn observe(scope: &mut Scope<'_>, key: &NamespacedName) -> Option<ReleaseObserved> {
        let group = scope.group;
        let release = group.releases.get(&key.name)?;
        let known = scope.answers.known(scope.app, scope.now);
        let services = group.services.all();
        let pods: Vec<_> = group.pods.all().collect();
        let probe_pod = scope.probe_pods.current(&scope.settings.probe_key, key, &pods);
        let (snapshots, revisions) = scope
            .snapshots()
            .map(|(name, kept)| {
                let revision = ObjectRef {
                    kind: Kind::ControllerRevision,
                    namespace: key.namespace.to_string(),
                    name: name.to_owned(),
                    uid: kept.uid.clone(),
                    resource_version: None,
                };
                ((name.to_owned(), kept.snapshot.clone()), revision)
            })
            .unzip();
        let endpoint_slices = slices(scope, key, &snapshots);
        let quotas = (!has_begun(&release)).then(|| scope.shared.quotas(key));
        Some(ReleaseObserved {
            release,
            app: scope.app(),
            siblings: siblings(scope, key),
            served_by_others: served_by_others(scope, &snapshots),
            snapshots,
            revisions,
            migrations: group.migrations.all().collect(),
            backups: group.backups.all().collect(),
            deployments: group.deployments.all().collect(),
            pods,
            jobs: group.jobs.all().collect(),
            legacy_pods: BTreeMap::new(),
            services: services.map(|service| (service.name_any(), service)).collect(),
            endpoint_slices,
            claims: BTreeMap::new(),
            quotas: quotas.into_iter().flatten().collect(),
            probe_pod,
            probes: scope.probes.health(key),
            refused: known.refused,
            dry_run_passed: known.dry_run_passed,
            warnings: known.warnings,
        })
    }

    /// Services while no watch shows one that it serves, claims before a Release begins whose components mount them, and pods
    /// of what it takes over from.
    fn lookups(observed: &ReleaseObserved, key: &NamespacedName) -> Vec<Lookup> {
        let is_over = !observed.release.is_open();
        let mut lookups = Vec::new();
        if !is_over || serves(observed) {
            let names = served(observed, is_over).into_iter();
            lookups.extend(names.map(|name| Lookup::Service(key.sibling(&name))));
        }
        if !is_over {
            let names = mounted(observed).into_iter();
            lookups.extend(names.map(|name| Lookup::Claim(key.sibling(&name))));
            lookups.extend(legacy_pods(observed, key));
        }
        lookups
    }

    fn add(observed: &mut ReleaseObserved, name: &str, found: LookupResult) {
        match found {
            LookupResult::Nothing => {}
            LookupResult::Service(service) => {
                observed.services.insert(name.to_owned(), service);
            }
            LookupResult::Claim(claim) => {
                observed.claims.insert(name.to_owned(), claim);
            }
            LookupResult::Pods(pods) => {
                observed.legacy_pods.insert(name.to_owned(), pods);
            }
        }
    }

    fn probes(observed: &ReleaseObserved, settings: &Settings) -> Option<Vec<ProbeTarget>> {
        Some(fairway_plan::release::probe_targets(observed, settings))
    }

    fn gone(state: &mut State, key: &NamespacedName) -> Vec<Step> {
        state.probes.set(key, Vec::new());
        state.probe_pods.forget(key);
        Vec::new()
    }
}

/// The other Releases of the App that are not being deleted.
fn siblings(scope: &Scope<'_>, key: &NamespacedName) -> Vec<Arc<Release>> {
    let mut siblings = scope.releases(Some(&key.name));
    siblings.retain(|sibling| stays(&sibling.metadata));
    siblings
}

/// The other Apps that serve a Service which a release of this App serves.
fn served_by_others(
    scope: &Scope<'_>,
    snapshots: &BTreeMap<String, Arc<Snapshot>>,
) -> BTreeMap<String, BTreeSet<String>> {
    let components = snapshots.values().flat_map(|snapshot| &snapshot.components);
    let served = components.filter_map(|component| component.serves.as_ref());
    let shared = served.map(|serves| {
        let others = scope.serving.others(scope.app, &serves.service);
        (
            serves.service.clone(),
            others.map(|other| other.name.to_string()).collect(),
        )
    });
    let shared: BTreeMap<String, BTreeSet<String>> = shared.collect();
    shared
        .into_iter()
        .filter(|(_, others)| !others.is_empty())
        .collect()
}

/// EndpointSlices of the Services that the snapshots serve: of the App's label those that Kubernetes made, and all that it did
/// not make.
fn slices(
    scope: &Scope<'_>,
    key: &NamespacedName,
    snapshots: &BTreeMap<String, Arc<Snapshot>>,
) -> Vec<Arc<EndpointSlice>> {
    let made = scope.group.endpoint_slices.all();
    let mut slices: Vec<_> = made
        .filter(|slice| slice.labels().contains_key(SERVICE_NAME) && !is_foreign(&slice.metadata))
        .collect();
    let components = snapshots.values().flat_map(|snapshot| &snapshot.components);
    let served: BTreeSet<_> = components
        .filter_map(|component| Some(component.serves.as_ref()?.service.as_str()))
        .collect();
    let foreign = served
        .into_iter()
        .flat_map(|service| scope.shared.foreign_slices(&key.sibling(service)));
    slices.extend(foreign.map(|slice| slice.0.clone()));
    slices
}

/// Names of Services that components of this Release, or of any, serve and that no watch shows. One may have lost the
/// label by which it is watched: taken for missing, it would be created again.
fn served(observed: &ReleaseObserved, only_own: bool) -> BTreeSet<String> {
    let own = observed.release.name_any();
    let components = observed
        .snapshots
        .iter()
        .filter(|(name, _)| !only_own || **name == own)
        .flat_map(|(_, snapshot)| &snapshot.components);
    let named = components.filter_map(|component| Some(component.serves.as_ref()?.service.clone()));
    named
        .filter(|name| !observed.services.contains_key(name))
        .collect()
}

/// Pods of the team's Deployments from which components take over, from the handover on. More may be selected than a
/// Deployment's own if another one selects them too.
fn legacy_pods(observed: &ReleaseObserved, key: &NamespacedName) -> Vec<Lookup> {
    let status = observed.release.status.as_ref();
    let hands_over = status.is_some_and(|status| happened(status, MilestoneKind::HandingOver).is_some());
    let deployments = observed.deployments.iter().filter(|_| hands_over);
    let legacy = deployments.filter(|deployment| is_legacy(&deployment.metadata));
    let pods = legacy.map(|deployment| {
        let selector = deployment.spec.as_ref().map(|spec| spec.selector.clone());
        // The API server takes no selector that cannot be read.
        let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
        let selected = selector.into_iter().flatten().collect();
        Lookup::Pods(key.sibling(&deployment.name_any()), selected)
    });
    pods.collect()
}

/// Names of claims that decide whether the Release may begin, and whether its migration waits for previous pods to end.
fn mounted(observed: &ReleaseObserved) -> BTreeSet<String> {
    let release = &observed.release;
    let snapshot = observed.snapshots.get(&release.name_any());
    let snapshot = snapshot.filter(|_| !has_begun(release));
    let Some(snapshot) = snapshot else {
        return BTreeSet::new();
    };
    let mounts = claims::mounts(snapshot).map(|mount| mount.claim);
    let all = mounts.chain(claims::of_migration(snapshot));
    all.map(str::to_owned).collect()
}
