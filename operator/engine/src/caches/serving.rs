//! Which Apps serve a Service.

use crate::key::NamespacedName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Apps by the Service that their spec serves. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serving {
    apps: Arc<BTreeMap<NamespacedName, BTreeSet<NamespacedName>>>,
}

impl Serving {
    /// Takes in which Services an App serves now, and which it served before. Returns the other Apps that serve one of
    /// them.
    pub(crate) fn set(
        &mut self,
        app: &NamespacedName,
        before: &BTreeSet<String>,
        now: &BTreeSet<String>,
    ) -> BTreeSet<NamespacedName> {
        if before != now {
            let apps = Arc::make_mut(&mut self.apps);
            for service in before.difference(now).map(|name| app.sibling(name)) {
                let is_free = apps.get_mut(&service).is_some_and(|serving| {
                    serving.remove(app);
                    serving.is_empty()
                });
                if is_free {
                    apps.remove(&service);
                }
            }
            for service in now.difference(before) {
                apps.entry(app.sibling(service)).or_default().insert(app.clone());
            }
        }
        let services = before.union(now);
        services
            .flat_map(|service| self.others(app, service))
            .cloned()
            .collect()
    }

    /// The Apps but this one that serve a Service of its namespace.
    pub(crate) fn others<'a>(
        &'a self,
        app: &'a NamespacedName,
        service: &str,
    ) -> impl Iterator<Item = &'a NamespacedName> {
        let serving = self.apps.get(&app.sibling(service));
        serving.into_iter().flatten().filter(move |other| *other != app)
    }
}
