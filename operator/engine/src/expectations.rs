//! What this process has written and not yet seen come back. An observation that lacks it is older than our last
//! write, and to plan on it would be to do things twice.

use crate::clock::Instant;
use crate::key::{NamespacedName, ObjectKey};
use crate::kinds::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// After this time an observation counts although a write has not come back: the object may have been
/// deleted between two lists. Planners then see a real state, only perhaps one write behind.
pub(crate) const EXPECTATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes of this process by App.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectations {
    by_app: BTreeMap<NamespacedName, Pending>,
}

#[derive(Clone, Debug, Default)]
struct Pending {
    writes: Vec<Write>,
    waiting: BTreeSet<ObjectKey>,
    /// Versions whose events did not come in time. The same write, which changes nothing, is not awaited again: while a
    /// watch is broken it would be repeated for ever.
    lost: BTreeMap<(Kind, String), u64>,
}

impl Pending {
    /// When the last of the awaited writes counts as lost.
    fn expires(&self) -> Option<Instant> {
        self.writes.iter().map(|write| write.expires).max()
    }

    fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.lost.is_empty()
    }
}

/// A write whose event is awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    kind: Kind,
    name: String,
    until: Until,
    expires: Instant,
}

/// What the cache must have seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// This resource version or a later one.
    Version(u64),
    /// The end of the object with this UID, or its beginning: a deletion timestamp.
    Gone(String),
}

/// What an event says of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// Its resource version; `None` when a list did not hold it.
    pub(crate) version: Option<u64>,
    /// Its UID, unless it is gone or being deleted.
    pub(crate) lives: Option<&'a str>,
}

impl Until {
    /// The object whose end is awaited.
    pub(crate) fn uid(&self) -> Option<&str> {
        match self {
            Self::Version(_) => None,
            Self::Gone(uid) => Some(uid),
        }
    }

    /// Whether what an event says of the object is enough.
    pub(crate) fn met(&self, seen: Seen<'_>) -> bool {
        match self {
            Self::Version(desired) => seen.version.is_some_and(|version| version >= *desired),
            Self::Gone(uid) => seen.lives != Some(uid),
        }
    }
}

impl Expectations {
    /// Remembers a write.
    pub(crate) fn expect(
        &mut self,
        app: &NamespacedName,
        kind: Kind,
        name: &str,
        until: Until,
        now: Instant,
    ) {
        let pending = self.by_app.entry(app.clone()).or_default();
        pending
            .writes
            .retain(|write| write.kind != kind || write.name != name);
        let lost = pending.lost.get(&(kind, name.to_owned()));
        if lost.is_some_and(|version| until == Until::Version(*version)) {
            return;
        }
        pending.writes.push(Write {
            kind,
            name: name.to_owned(),
            until,
            expires: now + EXPECTATION_TIMEOUT,
        });
    }

    /// When the last of the awaited writes of the App counts as lost: no event may ever come, of an object that was created and
    /// deleted between two lists.
    pub(crate) fn expiry(&self, app: &NamespacedName) -> Option<Instant> {
        self.by_app.get(app)?.expires()
    }

    /// Takes in an event. When it was the last write of the App that was awaited: whoever waits for it.
    pub(crate) fn saw(
        &mut self,
        app: &NamespacedName,
        kind: Kind,
        name: &str,
        seen: Seen<'_>,
    ) -> BTreeSet<ObjectKey> {
        let Some(pending) = self.by_app.get_mut(app) else {
            return BTreeSet::new();
        };
        pending
            .writes
            .retain(|write| write.kind != kind || write.name != name || !write.until.met(seen));
        pending.lost.remove(&(kind, name.to_owned()));
        if !pending.writes.is_empty() {
            return BTreeSet::new();
        }
        let waiting = std::mem::take(&mut pending.waiting);
        if pending.is_empty() {
            self.by_app.remove(app);
        }
        waiting
    }

    /// Whether an observation of the App is older than our last write: then until when at the latest, and `work`
    /// is enqueued as soon as it is not.
    pub(crate) fn stale(&mut self, app: &NamespacedName, work: &ObjectKey, now: Instant) -> Option<Instant> {
        let pending = self.by_app.get_mut(app)?;
        for expired in pending.writes.extract_if(.., |write| write.expires <= now) {
            if let Until::Version(version) = expired.until {
                pending.lost.insert((expired.kind, expired.name), version);
            }
        }
        let Some(expires) = pending.expires() else {
            pending.waiting.clear();
            if pending.is_empty() {
                self.by_app.remove(app);
            }
            return None;
        };
        pending.waiting.insert(work.clone());
        Some(expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::OwnKind;

    fn app() -> NamespacedName {
        NamespacedName::new("shop", "crm")
    }

    fn work() -> ObjectKey {
        ObjectKey::new(OwnKind::Release, NamespacedName::new("shop", "crm-1"))
    }

    fn at(version: u64) -> Seen<'static> {
        Seen {
            version: Some(version),
            lives: Some("uid"),
        }
    }

    #[test]
    fn an_observation_is_stale_until_every_write_has_come_back() {
        let mut expectations = Expectations::default();
        let now = Instant::default();
        expectations.expect(&app(), Kind::Deployment, "web", Until::Version(12), now);
        expectations.expect(&app(), Kind::Release, "crm-1", Until::Version(13), now);
        assert!(expectations.stale(&app(), &work(), now).is_some());
        assert!(
            expectations
                .saw(&app(), Kind::Deployment, "web", at(11))
                .is_empty(),
            "an older event"
        );
        assert!(
            expectations
                .saw(&app(), Kind::Release, "crm-1", at(13))
                .is_empty()
        );
        assert!(expectations.stale(&app(), &work(), now).is_some());
        let waiting = expectations.saw(&app(), Kind::Deployment, "web", at(14));
        assert_eq!(
            waiting,
            BTreeSet::from([work()]),
            "a later write of anyone implies ours"
        );
        assert!(expectations.stale(&app(), &work(), now).is_none());
    }

    #[test]
    fn a_write_that_never_comes_back_expires() {
        let mut expectations = Expectations::default();
        let now = Instant::default();
        expectations.expect(&app(), Kind::Job, "run", Until::Version(5), now);
        assert_eq!(
            expectations.stale(&app(), &work(), now),
            Some(now + EXPECTATION_TIMEOUT)
        );
        assert_eq!(
            expectations.stale(&app(), &work(), now + EXPECTATION_TIMEOUT),
            None
        );
    }

    #[test]
    fn a_write_that_never_came_back_is_not_awaited_again() {
        let (mut expectations, now) = (Expectations::default(), Instant::after_origin(Duration::ZERO));
        let later = now + EXPECTATION_TIMEOUT;
        let expect = |expectations: &mut Expectations, version, at| {
            expectations.expect(&app(), Kind::Job, "a", Until::Version(version), at);
        };
        expect(&mut expectations, 5, now);
        assert_eq!(expectations.expiry(&app()), Some(later));
        assert_eq!(expectations.stale(&app(), &work(), later), None);
        expect(&mut expectations, 5, later);
        assert_eq!(expectations.expiry(&app()), None, "it changed nothing");
        expect(&mut expectations, 6, later);
        assert!(expectations.expiry(&app()).is_some(), "it changed something");
        expectations.saw(&app(), Kind::Job, "a", at(6));
        assert!(expectations.by_app.is_empty(), "nothing is kept");
    }

    #[test]
    fn a_deletion_is_seen_by_its_start_its_end_or_another_object() {
        let gone = Until::Gone("uid".into());
        assert!(!gone.met(at(9)));
        assert!(gone.met(Seen {
            version: Some(9),
            lives: None
        }));
        assert!(gone.met(Seen {
            version: Some(9),
            lives: Some("other")
        }));
    }

    #[test]
    fn other_apps_are_not_held_up() {
        let mut expectations = Expectations::default();
        let now = Instant::default();
        expectations.expect(&app(), Kind::Job, "run", Until::Version(5), now);
        assert!(
            expectations
                .stale(&NamespacedName::new("shop", "cms"), &work(), now)
                .is_none()
        );
    }
}
