//! Restores: what takes the place of the database in use.

use super::{Checker, changed};
use crate::cluster::Cluster;
use crate::store::Objects;
use fairway_crds::restore::RestoreOutcome;
use kube::ResourceExt;

impl Checker {
    /// A restored database is put in place after an agreement is stored in the status of its Restore, and only a Restore whose
    /// database was put in place succeeds.
    pub(super) fn restores(&mut self, before: &Objects, cluster: &Cluster) {
        let replaced = &cluster.database.replaced;
        for (name, restore) in changed(&before.restores, &cluster.objects().restores) {
            let (Some(uid), Some(status)) = (restore.uid(), restore.status.as_ref()) else {
                continue;
            };
            if status.agreed.is_some() {
                self.agreed.insert(uid.clone());
            }
            if status.outcome == Some(RestoreOutcome::Succeeded) && !replaced.contains(&uid) {
                self.violated(format!(
                    "Restore {name} succeeded, and its database is not in use"
                ));
            }
        }
        let unasked: Vec<_> = replaced
            .iter()
            .filter(|uid| !self.agreed.contains(*uid))
            .cloned()
            .collect();
        for uid in unasked {
            self.violated(format!(
                "the database was replaced by the Restore with UID {uid}, and nobody had agreed to it"
            ));
        }
    }
}
