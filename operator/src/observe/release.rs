//! What the Release's planner gets to see.

use super::foreign::{Foreign, ForeignError};
use crate::execute::memory::Memory;
use crate::key::{Key, Reconciled, Work};
use crate::probe::prober::Prober;
use crate::world::group::ended;
use crate::world::{View, World};
use fairway_plan::ObjectRef;
use fairway_plan::object::Kind;
use fairway_plan::observed::ReleaseObserved;
use fairway_plan::release::{
    claims,
    history::{has_begun, serves},
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Observes a Release of that App. A client is required only while no watch shows a Service that it serves, and before
/// a Release begins whose components mount claims.
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
    let is_over = ended(&observed.release);
    if !is_over || serves(&observed) {
        for name in served(&observed, is_over) {
            if let Some(service) = foreign.service(&key.sibling(&name)).await? {
                observed.services.insert(name, service);
            }
        }
    }
    if !is_over {
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
        let (snapshots, revisions) = super::frozen(group)
            .map(|(name, frozen)| {
                let revision = ObjectRef {
                    kind: Kind::ControllerRevision,
                    namespace: key.namespace.to_string(),
                    name: name.to_owned(),
                    uid: frozen.uid.clone(),
                    resource_version: None,
                };
                ((name.to_owned(), frozen.spec.clone()), revision)
            })
            .unzip();
        Some(ReleaseObserved {
            release: group.releases.get(&key.name)?,
            app: group.app(),
            siblings: super::releases(group, Some(&key.name)),
            snapshots,
            revisions,
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

/// Names of Services that components of this Release, or of any, serve and that no watch shows. One may have lost the
/// label by which it is watched: taken for missing, it would be made anew.
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
