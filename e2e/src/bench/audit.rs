//! What the API server wrote down of a controller's requests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// A place in the audit log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u64);

/// Requests by `verb resource`.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests(pub(super) BTreeMap<String, usize>);

impl Mark {
    /// The end of the log.
    pub(super) fn now(log: &Path) -> Result<Self> {
        let length = std::fs::metadata(log)
            .with_context(|| format!("look at {}", log.display()))?
            .len();
        Ok(Self(length))
    }

    /// Requests of a user agent since then, Events and Leases apart.
    pub(super) fn since(self, log: &Path, user_agent: &str) -> Result<Requests> {
        let mut file = File::open(log).with_context(|| format!("open {}", log.display()))?;
        file.seek(SeekFrom::Start(self.0))?;
        let mut requests = Requests::default();
        for line in BufReader::new(file).lines() {
            // The last line may be half written.
            let Ok(event) = serde_json::from_str::<Value>(&line?) else {
                continue;
            };
            let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let apart = ["events", "leases"].contains(&text("/objectRef/resource"));
            if text("/stage") != "ResponseComplete" || !text("/userAgent").starts_with(user_agent) || apart {
                continue;
            }
            let resource = [text("/objectRef/resource"), text("/objectRef/subresource")];
            let resource = resource
                .iter()
                .filter(|part| !part.is_empty())
                .copied()
                .collect::<Vec<_>>()
                .join("/");
            *requests
                .0
                .entry(format!("{} {resource}", text("/verb")))
                .or_default() += 1;
        }
        Ok(requests)
    }
}

impl Requests {
    /// How many change something.
    pub(super) fn writes(&self) -> usize {
        self.count(|verb| ["create", "update", "patch", "delete", "deletecollection"].contains(&verb))
    }

    /// How many read a collection.
    pub(super) fn lists(&self) -> usize {
        self.count(|verb| verb == "list")
    }

    fn count(&self, desired: impl Fn(&str) -> bool) -> usize {
        let of = |key: &String| desired(key.split(' ').next().unwrap_or_default());
        self.0
            .iter()
            .filter(|(key, _)| of(key))
            .map(|(_, count)| count)
            .sum()
    }
}
