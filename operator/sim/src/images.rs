//! Images of the simulated registry. An image is known by its tag; its digest follows from that.

use fairway_plan::names::sha256_hex;
use std::collections::{BTreeMap, BTreeSet};

/// How the versions behave, by image (`crm:2`).
#[derive(Clone, Debug, Default)]
pub struct Images {
    /// Those that cannot be pulled.
    pub unpullable: BTreeSet<String>,
    /// Those whose containers exit as soon as they start.
    pub crashing: BTreeSet<String>,
    /// Those that answer health requests with 500.
    pub unhealthy: BTreeSet<String>,
    /// All that were ever named, by digest.
    known: BTreeMap<String, String>,
}

/// `sha256:…` of an image.
pub fn digest(image: &str) -> String {
    format!("sha256:{}", sha256_hex(image))
}

impl Images {
    /// The tag of a reference, whether it is one or was pinned.
    pub fn tag<'a>(&'a self, reference: &'a str) -> &'a str {
        let pinned = reference
            .rsplit_once('@')
            .and_then(|(_, digest)| self.known.get(digest));
        pinned.map_or(reference, String::as_str)
    }

    /// Takes note of a reference.
    pub fn name(&mut self, image: &str) {
        if !image.contains('@') {
            self.known.insert(digest(image), image.to_owned());
        }
    }

    /// Whether it cannot be pulled.
    pub fn is_unpullable(&self, reference: &str) -> bool {
        self.unpullable.contains(self.tag(reference))
    }

    /// Whether its container exits as soon as it starts.
    pub fn is_crashing(&self, reference: &str) -> bool {
        self.crashing.contains(self.tag(reference))
    }

    /// Whether it answers health requests badly.
    pub fn is_unhealthy(&self, reference: &str) -> bool {
        self.unhealthy.contains(self.tag(reference))
    }
}
