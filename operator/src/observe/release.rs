//! What the Release's planner gets to see.

use super::foreign::{Foreign, ForeignError};
use crate::execute::memory::Memory;
use crate::key::{Key, Reconciled, Work};
use crate::probe::prober::Prober;
use crate::world::group::ended;
use crate::world::{View, World};
use fairway_plan::observed::ReleaseObserved;
use fairway_plan::release::{claims, world::has_begun};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Observes a Release of that App. A client is required only while a Service that it serves was never applied, and
/// before a Release begins whose components mount claims.
///
/// # Errors
/// When such a Service or claim could not be asked for.
pub(crate) async fn observe(
    world: &World,
    foreign: &Foreign,
    memory: &Memory,
    prober: &Prober,
    app: &Key,
    key: &Key,
) -> Result<View<ReleaseObserved>, ForeignError> {
    let view = cached(world, memory, prober, app, key);
    let View::Of(mut observed) = view else {
        return Ok(view);
    };
    if !ended(&observed.release) {
        for name in served(&observed) {
            if let Some(service) = foreign.service(&key.sibling(&name)).await? {
                observed.services.insert(name, service);
            }
        }
        for name in mounted(&observed) {
            if let Some(claim) = foreign.claim(&key.sibling(&name)).await? {
                observed.claims.insert(name, claim);
            }
        }
    }
    Ok(View::Of(observed))
}

/// All but what no watch shows. No client.
fn cached(world: &World, memory: &Memory, prober: &Prober, app: &Key, key: &Key) -> View<ReleaseObserved> {
    world.view(app, &Work::new(Reconciled::Release, key.clone()), |group| {
        let told = memory.told(app, Instant::now());
        let services = group
            .services
            .all()
            .map(|service| (service.name_any(), service.clone()));
        Some(ReleaseObserved {
            release: group.releases.get(&key.name)?,
            app: group.app(),
            siblings: super::releases(group, Some(&key.name)),
            snapshots: super::snapshots(group),
            revisions: super::revisions(group, &key.namespace),
            migrations: group.migrations.all().collect(),
            backups: group.backups.all().collect(),
            deployments: group.deployments.all().collect(),
            pods: group.pods.all().collect(),
            jobs: group.jobs.all().collect(),
            services: services.collect(),
            endpoint_slices: group
                .endpoint_slices
                .all()
                .filter(|slice| of_a_service(slice))
                .collect(),
            claims: BTreeMap::new(),
            probes: prober.health(key),
            refused: told.refused,
            dry_run_passed: told.dry_run_passed,
        })
    })
}

fn of_a_service(slice: &EndpointSlice) -> bool {
    slice.labels().contains_key(SERVICE_NAME)
}

/// Names of Services that components of any observed snapshot serve and that no watch has shown.
fn served(observed: &ReleaseObserved) -> BTreeSet<String> {
    let components = observed
        .snapshots
        .values()
        .flat_map(|snapshot| &snapshot.components);
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
