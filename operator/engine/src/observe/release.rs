//! What the Release's planner gets to see.

use super::{Observe, Sight};
use crate::caches::Kept;
use crate::key::Key;
use crate::kinds::{EndpointSlice, Release};
use crate::lookups::{Found, Lookup};
use crate::state::State;
use fairway_plan::object::Kind;
use fairway_plan::observed::{ProbeTarget, ReleaseObserved, Settings};
use fairway_plan::release::claims;
use fairway_plan::release::history::{has_begun, serves};
use fairway_plan::{ObjectRef, Step};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Observe for Release {
    fn observe(sight: &Sight<'_>, key: &Key) -> Option<ReleaseObserved> {
        let group = sight.group;
        let release = group.releases.get(&key.name)?;
        let known = sight.refusals.known(sight.app, sight.now);
        let services = group.services.all();
        let (snapshots, revisions) = sight
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
        Some(ReleaseObserved {
            release,
            app: group.app(),
            siblings: sight.releases(Some(&key.name)),
            snapshots,
            revisions,
            migrations: group.migrations.all().collect(),
            backups: group.backups.all().collect(),
            deployments: group.deployments.all().collect(),
            pods: group.pods.all().collect(),
            jobs: group.jobs.all().collect(),
            services: services.map(|service| (service.name_any(), service)).collect(),
            endpoint_slices: group
                .endpoint_slices
                .all()
                .filter(|slice| of_a_service(slice))
                .collect(),
            claims: BTreeMap::new(),
            probes: sight.probes.health(key),
            refused: known.refused,
            dry_run_passed: known.dry_run_passed,
        })
    }

    /// Services while no watch shows one that it serves, and claims before a Release begins whose components mount
    /// them.
    fn lookups(observed: &ReleaseObserved, key: &Key) -> Vec<Lookup> {
        let is_over = !observed.release.is_open();
        let mut lookups = Vec::new();
        if !is_over || serves(observed) {
            let names = served(observed, is_over).into_iter();
            lookups.extend(names.map(|name| Lookup::Service(key.sibling(&name))));
        }
        if !is_over {
            let names = mounted(observed).into_iter();
            lookups.extend(names.map(|name| Lookup::Claim(key.sibling(&name))));
        }
        lookups
    }

    fn add(observed: &mut ReleaseObserved, name: &str, found: Found) {
        match found {
            Found::Nothing => {}
            Found::Service(service) => {
                observed.services.insert(name.to_owned(), service);
            }
            Found::Claim(claim) => {
                observed.claims.insert(name.to_owned(), claim);
            }
        }
    }

    fn probes(observed: &ReleaseObserved, settings: &Settings) -> Option<Vec<ProbeTarget>> {
        Some(fairway_plan::release::probe_targets(observed, settings))
    }

    fn gone(state: &mut State, key: &Key) -> Vec<Step> {
        state.probes.set(key, Vec::new());
        Vec::new()
    }
}

fn of_a_service(slice: &EndpointSlice) -> bool {
    slice.labels().contains_key(SERVICE_NAME)
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

/// Names of claims that decide whether the Release may begin.
fn mounted(observed: &ReleaseObserved) -> BTreeSet<String> {
    let release = &observed.release;
    let snapshot = observed.snapshots.get(&release.name_any());
    let snapshot = snapshot.filter(|_| !has_begun(release));
    let mounts = snapshot.into_iter().flat_map(|snapshot| claims::mounts(snapshot));
    mounts.map(|mount| mount.claim.to_owned()).collect()
}
