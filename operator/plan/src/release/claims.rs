//! Volumes that two versions side by side would have to share. A ReadWriteOnce claim is attached to one node at a
//! time, so a new pod on another node would wait for it for as long as the old one runs:
//! <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#access-modes>.

use super::verdict::Failure;
use crate::snapshot::Snapshot;
use fairway_crds::Reason;
use fairway_crds::component::Strategy;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Access modes with which pods on several nodes may use a volume at once.
const SHARED: [&str; 2] = ["ReadWriteMany", "ReadOnlyMany"];

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
        let volumes = component.template["spec"]["volumes"].as_array();
        volumes.into_iter().flatten().filter_map(|volume| {
            Some(Mount {
                component: &component.name,
                volume: volume["name"].as_str().unwrap_or_default(),
                claim: volume["persistentVolumeClaim"]["claimName"].as_str()?,
            })
        })
    })
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
        let modes = access_modes(claims.get(claim)?);
        if modes.iter().any(|mode| SHARED.contains(&mode.as_str())) {
            return None;
        }
        Some(Failure::new(
            Reason::ClaimNotShared,
            format!(
                "Volume {volume} of component {component} is claim {claim}, which is {modes} and cannot be used by the pods of two versions side by side. Set strategy: Recreate on component {component}, or use a ReadWriteMany claim.",
                modes = modes.join(", ")
            ),
        ))
    })
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
    #[case::of_one_node("BlueGreen", &["ReadWriteOnce"], true)]
    #[case::of_one_pod("BlueGreen", &["ReadWriteOncePod"], true)]
    #[case::of_many("BlueGreen", &["ReadWriteMany"], false)]
    #[case::to_read("BlueGreen", &["ReadOnlyMany"], false)]
    #[case::of_one_or_many("BlueGreen", &["ReadWriteOnce", "ReadWriteMany"], false)]
    #[case::one_after_the_other("Recreate", &["ReadWriteOnce"], false)]
    fn a_claim_for_one_node_is_refused_where_versions_overlap(
        #[case] strategy: &str,
        #[case] modes: &[&str],
        #[case] refused: bool,
    ) {
        let volumes = json!([{"name": "files", "persistentVolumeClaim": {"claimName": "uploads"}}]);
        let failure = not_shared(&snapshot(strategy, &volumes), &claims("uploads", modes));
        assert_eq!(failure.is_some(), refused, "{failure:?}");
    }

    #[rstest]
    #[case::a_claim_that_does_not_exist(json!([{"name": "files", "persistentVolumeClaim": {"claimName": "to-come"}}]))]
    #[case::a_claim_of_each_pod(json!([{"name": "uploads", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}]))]
    #[case::a_folder_of_each_pod(json!([{"name": "uploads", "emptyDir": {}}]))]
    #[case::no_volumes(json!(null))]
    #[case::volumes_that_are_none(json!({"uploads": "persistentVolumeClaim"}))]
    fn nothing_else_is_refused(#[case] volumes: Value) {
        let failure = not_shared(
            &snapshot("BlueGreen", &volumes),
            &claims("uploads", &["ReadWriteOnce"]),
        );
        assert_eq!(failure, None);
    }

    #[test]
    fn the_failure_names_component_volume_claim_and_fix() {
        let volumes = json!([
            {"name": "tmp", "emptyDir": {}},
            {"name": "files", "persistentVolumeClaim": {"claimName": "uploads"}},
        ]);
        let failure = not_shared(
            &snapshot("BlueGreen", &volumes),
            &claims("uploads", &["ReadWriteOnce"]),
        )
        .unwrap();
        assert_eq!(failure.reason, Reason::ClaimNotShared);
        assert_eq!(
            failure.message,
            "Volume files of component web is claim uploads, which is ReadWriteOnce and cannot be used by the pods of two versions side by side. Set strategy: Recreate on component web, or use a ReadWriteMany claim."
        );
    }
}
