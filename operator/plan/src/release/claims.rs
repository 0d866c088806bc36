//! Volumes that two versions side by side have to share. A ReadWriteOnce claim is attached to one node at a time, so a
//! new pod on another node would wait for it for as long as the old one runs: the pods of such a component run on one
//! node. A ReadWriteOncePod claim is one pod's alone, and refused.
//! <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#access-modes>.

use super::verdict::Failure;
use crate::snapshot::Snapshot;
use fairway_crds::Reason;
use fairway_crds::component::{Component, Strategy};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Access modes with which pods on several nodes may use a volume at once.
const SHARED: [&str; 2] = ["ReadWriteMany", "ReadOnlyMany"];
/// Access mode with which pods on one node may use a volume at once.
const ONE_NODE: &str = "ReadWriteOnce";

/// A volume of a component whose pods run beside those of the version before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// The component.
    pub component: &'a str,
    /// The volume in its template.
    pub volume: &'a str,
    /// Name of the PersistentVolumeClaim.
    pub claim: &'a str,
}

/// The claims that components with strategy `BlueGreen` mount. Ephemeral volumes are not among them: each pod has
/// its own.
pub fn mounts(snapshot: &Snapshot) -> impl Iterator<Item = Mount<'_>> {
    let overlapping = snapshot
        .components
        .iter()
        .filter(|component| component.strategy == Strategy::BlueGreen);
    overlapping.flat_map(|component| {
        of(component).map(|(volume, claim)| Mount {
            component: &component.name,
            volume,
            claim,
        })
    })
}

/// The claims that the pod of the migration mounts: those of its component.
pub fn of_migration(snapshot: &Snapshot) -> impl Iterator<Item = &str> {
    let migration = snapshot.migration.as_ref();
    let component = migration.and_then(|migration| snapshot.component(&migration.component));
    component.into_iter().flat_map(of).map(|(_, claim)| claim)
}

/// Volumes of a component's template that are claims, each with the name of its claim.
pub(super) fn of(component: &Component) -> impl Iterator<Item = (&str, &str)> {
    let volumes = component.template["spec"]["volumes"].as_array();
    volumes.into_iter().flatten().filter_map(|volume| {
        let claim = volume["persistentVolumeClaim"]["claimName"].as_str()?;
        Some((volume["name"].as_str().unwrap_or_default(), claim))
    })
}

/// Whether pods on several nodes may mount a claim at once.
pub(super) fn is_shared(claim: &PersistentVolumeClaim) -> bool {
    let modes = access_modes(claim);
    SHARED.iter().any(|mode| has(modes, mode))
}

/// Why this version could not run beside another one, if one of these claims is the reason. A claim that does not
/// exist may come yet; until then its pods say what they wait for.
///
/// The first release is refused too, although nothing runs beside it: its successor could not start any more.
pub(super) fn not_shared(
    snapshot: &Snapshot,
    claims: &BTreeMap<String, Arc<PersistentVolumeClaim>>,
) -> Option<Failure> {
    mounts(snapshot).find_map(|mount| {
        let Mount {
            component,
            volume,
            claim,
        } = mount;
        let found = claims.get(claim).filter(|found| !is_shared(found))?;
        let modes = access_modes(found);
        if has(modes, ONE_NODE) {
            return None;
        }
        Some(Failure::new(
            Reason::ClaimNotShared,
            format!(
                "Volume {volume} of component {component} is claim {claim}, which is {modes} and cannot be used by the pods of two versions side by side. Set strategy: Recreate on component {component}, or use a ReadWriteOnce or ReadWriteMany claim.",
                modes = modes.join(", ")
            ),
        ))
    })
}

/// Components whose pods, of whichever release, have to run on one node.
pub(super) fn on_one_node(
    snapshot: &Snapshot,
    claims: &BTreeMap<String, Arc<PersistentVolumeClaim>>,
) -> Vec<String> {
    let bound = mounts(snapshot).filter(|mount| {
        let claim = claims.get(mount.claim);
        claim.is_some_and(|claim| !is_shared(claim) && has(access_modes(claim), ONE_NODE))
    });
    let components: BTreeSet<_> = bound.map(|mount| mount.component.to_owned()).collect();
    components.into_iter().collect()
}

fn has(modes: &[String], mode: &str) -> bool {
    modes.iter().any(|found| found == mode)
}

fn access_modes(claim: &PersistentVolumeClaim) -> &[String] {
    let spec = claim.spec.as_ref();
    spec.and_then(|spec| spec.access_modes.as_deref())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn snapshot(strategy: &str, volumes: &Value) -> Snapshot {
        serde_json::from_value(json!({
            "components": [
                {"name": "api", "template": {"spec": {"containers": [{"name": "api"}]}}},
                {
                    "name": "web", "strategy": strategy,
                    "template": {"spec": {"containers": [{"name": "web"}], "volumes": volumes}}
                },
            ],
            "traffic": {},
        }))
        .unwrap()
    }

    fn claims(name: &str, modes: &[&str]) -> BTreeMap<String, Arc<PersistentVolumeClaim>> {
        let claim =
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"accessModes": modes}}));
        [(name.to_owned(), Arc::new(claim.unwrap()))].into()
    }

    #[rstest]
    #[case::of_one_node("BlueGreen", &["ReadWriteOnce"], "one node")]
    #[case::of_one_node_or_pod("BlueGreen", &["ReadWriteOnce", "ReadWriteOncePod"], "one node")]
    #[case::of_one_pod("BlueGreen", &["ReadWriteOncePod"], "refused")]
    #[case::of_many("BlueGreen", &["ReadWriteMany"], "any node")]
    #[case::to_read("BlueGreen", &["ReadOnlyMany"], "any node")]
    #[case::of_one_or_many("BlueGreen", &["ReadWriteOnce", "ReadWriteMany"], "any node")]
    #[case::one_after_the_other("Recreate", &["ReadWriteOncePod"], "any node")]
    fn the_access_modes_decide_where_versions_overlap(
        #[case] strategy: &str,
        #[case] modes: &[&str],
        #[case] expected: &str,
    ) {
        let volumes = json!([{"name": "files", "persistentVolumeClaim": {"claimName": "uploads"}}]);
        let (snapshot, claims) = (snapshot(strategy, &volumes), claims("uploads", modes));
        let failure = not_shared(&snapshot, &claims);
        let found = match (&failure, on_one_node(&snapshot, &claims).as_slice()) {
            (Some(_), _) => "refused",
            (None, []) => "any node",
            (None, on_one_node) => {
                assert_eq!(on_one_node, ["web"]);
                "one node"
            }
        };
        assert_eq!(found, expected, "{failure:?}");
    }

    #[rstest]
    #[case::a_claim_that_does_not_exist(json!([{"name": "files", "persistentVolumeClaim": {"claimName": "to-come"}}]))]
    #[case::a_claim_of_each_pod(json!([{"name": "uploads", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOncePod"]}}}}]))]
    #[case::a_folder_of_each_pod(json!([{"name": "uploads", "emptyDir": {}}]))]
    #[case::no_volumes(json!(null))]
    #[case::volumes_that_are_none(json!({"uploads": "persistentVolumeClaim"}))]
    fn nothing_else_is_refused(#[case] volumes: Value) {
        let (snapshot, claims) = (
            snapshot("BlueGreen", &volumes),
            claims("uploads", &["ReadWriteOncePod"]),
        );
        assert_eq!(not_shared(&snapshot, &claims), None);
        assert!(on_one_node(&snapshot, &claims).is_empty());
    }

    #[test]
    fn the_failure_names_component_volume_claim_and_fix() {
        let volumes = json!([
            {"name": "tmp", "emptyDir": {}},
            {"name": "files", "persistentVolumeClaim": {"claimName": "uploads"}},
        ]);
        let failure = not_shared(
            &snapshot("BlueGreen", &volumes),
            &claims("uploads", &["ReadWriteOncePod"]),
        )
        .unwrap();
        assert_eq!(failure.reason, Reason::ClaimNotShared);
        assert_eq!(
            failure.message,
            "Volume files of component web is claim uploads, which is ReadWriteOncePod and cannot be used by the pods of two versions side by side. Set strategy: Recreate on component web, or use a ReadWriteOnce or ReadWriteMany claim."
        );
    }
}
