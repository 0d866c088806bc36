//! What the Backup and the Migration of a release have in common.

use super::view::View;
use crate::labels;
use crate::names;
use crate::readings::owned_by;
use fairway_crds::{Backup, Migration};
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

impl<'a> View<'a> {
    /// The migration of this release.
    pub fn migration(&self) -> Option<&'a Arc<Migration>> {
        self.observed.migrations.iter().find(|migration| {
            migration.spec.release.as_deref() == Some(self.name())
                && owned_by(migration.owner_references(), self.uid())
        })
    }

    /// The newest backup of this release, and which one it is.
    pub fn backup(&self) -> Option<(u32, &'a Arc<Backup>)> {
        let numbered = |number| {
            let name = names::backup(self.name(), self.uid(), number);
            let mut backups = self.observed.backups.iter();
            let found = backups.find(|backup| backup.metadata.name.as_deref() == Some(&*name));
            found.map(|backup| (number, backup))
        };
        (1..).map_while(numbered).last()
    }
}

pub(super) fn child_labels(view: &View) -> BTreeMap<String, String> {
    [
        (labels::APP, view.app_name()),
        (labels::RELEASE, view.name()),
        (labels::MANAGED_BY, labels::FAIRWAY),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}
