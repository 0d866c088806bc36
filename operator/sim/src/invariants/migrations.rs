//! What is done to the database: migrations and dumps.

use super::{Checker, Observations};
use crate::cluster::Cluster;
use crate::database::Execution;
use crate::store::Objects;
use fairway_plan::labels;
use fairway_plan::readings::has_finished;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::BTreeSet;

impl Checker {
    /// There is one dump of the database at a time, whoever applies how many Backups.
    pub(super) fn dumps(&mut self, after: &Objects) {
        if self.observations == Observations::Stale {
            // The agent's lock in the database is what holds then.
            return;
        }
        let is_of_backup = |pod: &&Pod| {
            let work = pod.labels().get(labels::WORK);
            work.is_some_and(|work| work == labels::Work::Backup.as_str())
        };
        let runs = |pod: &&Pod| !has_finished(pod) && pod.metadata.deletion_timestamp.is_none();
        let pods = after.pods.values().map(AsRef::as_ref);
        let dumped: BTreeSet<_> = pods
            .filter(is_of_backup)
            .filter(runs)
            .filter_map(|pod| pod.labels().get(labels::WORK_FOR))
            .collect();
        if dumped.len() > 1 {
            self.violated(format!(
                "the database is dumped for several Backups at once: {dumped:?}"
            ));
        }
    }

    /// A migration is executed at most once for its run and for its release, never when the ledger says that it was
    /// applied, and never before a backup made for its release is proven. One applied by hand has no release.
    pub(super) fn migrations(&mut self, cluster: &Cluster) {
        let executions = &cluster.database.executions;
        for (index, execution) in executions.iter().enumerate().skip(self.executions.len()) {
            let identity = &execution.identity;
            let app = self.app.clone();
            let same = |(_, other): &(usize, &Execution)| {
                other.identity.image_digest == identity.image_digest
                    && other.identity.command_hash == identity.command_hash
            };
            let earlier: Vec<_> = executions[..index].iter().enumerate().filter(same).collect();
            let by_hand = execution.release.is_empty() || is_by_hand(cluster.objects(), &identity.run_id);
            let is_same_release = |index: usize, other: &Execution| {
                // An App that was created again counts its releases from 1 again.
                !by_hand && other.release == execution.release && self.executions.get(index) == Some(&app)
            };
            let again = earlier.iter().any(|(index, other)| {
                other.identity.run_id == identity.run_id || is_same_release(*index, other)
            });
            if again {
                self.violated(format!(
                    "the migration of {} was executed twice",
                    execution.release
                ));
            }
            let applied = earlier
                .iter()
                .any(|(_, other)| cluster.database.has_applied(&other.identity));
            if applied {
                self.violated(format!(
                    "{} executed a migration that the ledger has",
                    execution.release
                ));
            }
            let proven = self.proven.contains(&self.release_of(&execution.release));
            if !proven && !by_hand {
                self.violated(format!("{} migrated without a proven backup", execution.release));
            }
            self.executions.push(app);
        }
    }
}

/// Whether a user applied the Migration of a run, which backs up nothing then.
fn is_by_hand(objects: &Objects, run_id: &str) -> bool {
    let mut migrations = objects.migrations.values();
    migrations.any(|migration| {
        let of_the_run = migration
            .status
            .as_ref()
            .and_then(|status| status.run_id.as_deref())
            == Some(run_id);
        of_the_run && migration.owner_references().is_empty()
    })
}
