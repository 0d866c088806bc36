//! Which backups are kept, and why.
//!
//! Only verified backups count: one that failed takes nobody's place. They are counted by the date on which they were taken, in
//! the time zone of the App. Of each day, week, month and year the newest one is kept, for as many of these as the App says,
//! counted from the newest back; days without a backup are not counted, so a pause of the backups removes nothing.
//!
//! One that failed may have left something in the store. It goes after a while, when a newer one is verified.

use crate::message::moment;
use crate::proof::{failed_at, is_verified, taken_at};
use crate::zone;
use fairway_crds::app::{BackupSettings, Keep};
use fairway_crds::{Backup, Release, Restore};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// For how long a backup that failed is kept.
const UNPROVEN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What retention looks at of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Name of the Backup.
    pub name: String,
    /// When it was taken, if it is verified.
    pub verified: Option<Timestamp>,
    /// When it failed, if it did.
    pub failed: Option<Timestamp>,
    /// Until when a user wants it to be kept.
    pub keep_until: Option<Timestamp>,
    /// What refers to it, such as `Release crm-42`.
    pub held_by: Vec<String>,
}

/// A span of the calendar of which the newest backup is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Span {
    Day,
    Week,
    Month,
    Year,
}

impl Span {
    /// The span that a date is in, as it is written; in the order of time within one kind.
    fn of(self, date: Date) -> String {
        match self {
            Self::Day => date.to_string(),
            Self::Week => {
                let week = date.iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Self::Month => format!("{:04}-{:02}", date.year(), date.month()),
            Self::Year => format!("{:04}", date.year()),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }
}

impl Candidate {
    /// What retention looks at of a Backup; `live` is the name of the Release that serves.
    pub fn of(backup: &Backup, releases: &[Arc<Release>], live: Option<&str>) -> Self {
        let name = backup.name_any();
        let refers = |release: &&Arc<Release>| {
            let of_release = release.name_any();
            let status = release.status.as_ref();
            let evidence = status.and_then(|status| status.evidence.backup.as_ref());
            let has_ended = status.is_some_and(|status| status.outcome.is_some());
            let is_its = backup.spec.release.as_ref() == Some(&of_release)
                || evidence.is_some_and(|evidence| evidence.name == name);
            is_its && (!has_ended || live == Some(&*of_release))
        };
        let holders = releases.iter().filter(refers);
        Self {
            verified: is_verified(backup).then(|| taken_at(backup)).flatten(),
            failed: failed_at(backup),
            keep_until: backup.spec.keep_until,
            held_by: holders
                .map(|release| format!("Release {}", release.name_any()))
                .collect(),
            name,
        }
    }

    /// This candidate, also held by the Restores that have not ended and restore it.
    pub fn or_restores(mut self, restores: &[Arc<Restore>]) -> Self {
        let holders = restores.iter().filter(|restore| {
            let has_ended = restore
                .status
                .as_ref()
                .is_some_and(|status| status.outcome.is_some());
            restore.spec.from.backup == self.name
                && !has_ended
                && restore.metadata.deletion_timestamp.is_none()
        });
        let holders = holders.map(|restore| format!("Restore {}", restore.name_any()));
        self.held_by.extend(holders);
        self
    }

    /// When it is not kept any more for having failed a short while ago.
    pub fn unproven_until(&self) -> Option<Timestamp> {
        let failed = self.failed?;
        Some(failed.saturating_add(UNPROVEN).unwrap_or(Timestamp::MAX))
    }
}

/// Whether one of these is verified and newer than a backup of that moment and name. A clock that was ahead proves nothing.
pub fn has_newer(candidates: &[Candidate], than: (Timestamp, &str), now: Timestamp) -> bool {
    let mut verified = candidates.iter().filter_map(|candidate| {
        let taken = candidate.verified.filter(|taken| *taken <= now)?;
        Some((taken, candidate.name.as_str()))
    });
    verified.any(|newer| newer > than)
}

/// The time zone by whose dates backups are counted: that of the schedule, or UTC.
pub fn zone_of(settings: &BackupSettings) -> TimeZone {
    let name = settings
        .schedule
        .as_ref()
        .map(|schedule| schedule.time_zone.as_str());
    name.and_then(zone::of).unwrap_or(TimeZone::UTC)
}

/// That a user wants a backup to be kept until then.
pub(crate) fn wanted(until: Timestamp) -> String {
    format!("keepUntil {}", moment(until))
}

/// Why each backup is kept, by name. One that is not in it is not kept.
pub fn kept(
    candidates: &[Candidate],
    keep: &Keep,
    zone: &TimeZone,
    now: Timestamp,
) -> BTreeMap<String, Vec<String>> {
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut keeps = |candidate: &Candidate, why: String| {
        reasons.entry(candidate.name.clone()).or_default().push(why);
    };
    for candidate in candidates {
        for holder in &candidate.held_by {
            keeps(candidate, holder.clone());
        }
        if let Some(until) = candidate.keep_until.filter(|until| *until > now) {
            keeps(candidate, wanted(until));
        }
        if let Some(until) = candidate.unproven_until().filter(|until| *until > now) {
            keeps(candidate, format!("unproven, to {}", moment(until)));
        } else if let Some(failed) = candidate.failed
            && !has_newer(candidates, (failed, &candidate.name), now)
        {
            keeps(candidate, "unproven, and no newer one is verified".to_owned());
        }
        // Counted, it would push out others until its time comes.
        if candidate.verified.is_some_and(|taken| taken > now) {
            keeps(candidate, "taken by a clock that was ahead".to_owned());
        }
    }
    let taken = |candidate: &&Candidate| candidate.verified.filter(|taken| *taken <= now);
    let mut verified: Vec<_> = candidates
        .iter()
        .filter_map(|candidate| Some((taken(&candidate)?, candidate)))
        .collect();
    verified.sort_by_key(|(taken, candidate)| Reverse((*taken, candidate.name.as_str())));
    let Keep {
        last,
        daily,
        weekly,
        monthly,
        yearly,
    } = *keep;
    for (_, candidate) in verified.iter().take(number(last)) {
        keeps(candidate, "last".to_owned());
    }
    for (span, count) in [
        (Span::Day, daily),
        (Span::Week, weekly),
        (Span::Month, monthly),
        (Span::Year, yearly),
    ] {
        let mut newest: Option<String> = None;
        let mut left = number(count);
        for (taken, candidate) in &verified {
            let current = span.of(zone.to_datetime(*taken).date());
            if newest.as_ref() == Some(&current) {
                continue;
            }
            if left == 0 {
                break;
            }
            left -= 1;
            keeps(candidate, format!("{} {current}", span.name()));
            newest = Some(current);
        }
    }
    reasons
}

fn number(count: u16) -> usize {
    usize::from(count)
}

#[cfg(test)]
mod tests;
