use super::*;
use jiff::{SignedDuration, ToSpan as _};
use proptest::prelude::*;
use rstest::rstest;
use std::collections::BTreeSet;

const ZONES: [&str; 5] = [
    "UTC",
    "Europe/Warsaw",
    "America/New_York",
    // Half an hour of summer time; a day that was left out.
    "Australia/Lord_Howe",
    "Pacific/Apia",
];

fn zone(name: &str) -> TimeZone {
    crate::zone::of(name).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NONE: Keep = Keep {
    last: 0,
    daily: 0,
    weekly: 0,
    monthly: 0,
    yearly: 0,
};

/// Backups that were verified, by when they were taken.
fn verified(times: &[&str]) -> Vec<Candidate> {
    times
        .iter()
        .map(|time| Candidate {
            name: (*time).to_owned(),
            verified: Some(at(time)),
            failed: None,
            keep_until: None,
            held_by: Vec::new(),
        })
        .collect()
}

/// Names of what is kept, the oldest first.
fn names(candidates: &[Candidate], keep: Keep, zone_name: &str) -> Vec<String> {
    let now = at("2026-06-01T00:00:00Z");
    kept(candidates, &keep, &zone(zone_name), now)
        .into_keys()
        .collect()
}

#[rstest]
#[case::the_last(Keep { last: 2, ..NONE }, &["2026-03-02T01:00:00Z", "2026-03-02T20:00:00Z"])]
#[case::the_newest_of_each_day(Keep { daily: 3, ..NONE }, &["2026-02-27T20:00:00Z", "2026-03-01T20:00:00Z", "2026-03-02T20:00:00Z"])]
#[case::weeks_begin_on_monday(Keep { weekly: 2, ..NONE }, &["2026-03-01T20:00:00Z", "2026-03-02T20:00:00Z"])]
#[case::months(Keep { monthly: 5, ..NONE }, &["2026-02-27T20:00:00Z", "2026-03-02T20:00:00Z"])]
#[case::years(Keep { yearly: 1, ..NONE }, &["2026-03-02T20:00:00Z"])]
#[case::nothing(NONE, &[])]
fn the_newest_of_each_span_is_kept(#[case] keep: Keep, #[case] expected: &[&str]) {
    let candidates = verified(&[
        "2026-02-27T01:00:00Z",
        "2026-02-27T20:00:00Z",
        "2026-03-01T01:00:00Z",
        "2026-03-01T20:00:00Z",
        "2026-03-02T01:00:00Z",
        "2026-03-02T20:00:00Z",
    ]);
    assert_eq!(names(&candidates, keep, "UTC"), expected);
}

#[test]
fn days_are_those_of_the_time_zone() {
    let keep = Keep { daily: 2, ..NONE };
    let candidates = verified(&["2026-03-01T22:30:00Z", "2026-03-01T23:30:00Z"]);
    assert_eq!(names(&candidates, keep, "UTC"), ["2026-03-01T23:30:00Z"]);
    assert_eq!(names(&candidates, keep, "Europe/Warsaw").len(), 2);
}

#[test]
fn each_reason_is_said() {
    let mut candidates = verified(&["2026-03-02T20:00:00Z"]);
    candidates[0].held_by = vec!["Release crm-42".to_owned()];
    candidates[0].keep_until = Some(at("2026-07-01T00:00:00Z"));
    let keep = Keep {
        last: 1,
        daily: 1,
        weekly: 1,
        monthly: 1,
        yearly: 1,
    };
    let now = at("2026-06-01T00:00:00Z");
    let reasons = kept(&candidates, &keep, &zone("UTC"), now);
    assert_eq!(
        reasons["2026-03-02T20:00:00Z"],
        [
            "Release crm-42",
            "keepUntil 2026-07-01T00:00:00Z",
            "last",
            "daily 2026-03-02",
            "weekly 2026-W10",
            "monthly 2026-03",
            "yearly 2026"
        ]
    );
}

/// Complaint 15: a failed dump counted as a backup, and retention removed the real ones.
#[test]
fn c15_a_backup_that_is_not_verified_takes_nobodys_place() {
    let mut candidates = verified(&[
        "2026-03-01T20:00:00Z",
        "2026-03-02T20:00:00Z",
        "2026-03-03T20:00:00Z",
    ]);
    for failed in &mut candidates[1..] {
        failed.verified = None;
    }
    let keep = Keep { last: 1, ..NONE };
    assert_eq!(names(&candidates, keep, "UTC"), ["2026-03-01T20:00:00Z"]);
}

/// Complaint 24: retention removed the backup that was being restored.
#[test]
fn c24_what_is_referred_to_is_kept_whatever_its_age_and_level() {
    let mut candidates = verified(&["2024-03-01T20:00:00Z", "2026-03-02T20:00:00Z"]);
    candidates[0].verified = None;
    candidates[0].held_by = vec!["Release crm-42".to_owned()];
    let keep = Keep { last: 1, ..NONE };
    assert_eq!(names(&candidates, keep, "UTC").len(), 2);
}

/// Complaint 24.
#[test]
fn c24_a_backup_that_is_being_restored_is_kept_until_that_ends() {
    let restore = |name: &str, backup: &str, outcome: Option<&str>| {
        let restore = serde_json::json!({
            "apiVersion": "fairway.dev/v1alpha1", "kind": "Restore", "metadata": {"name": name},
            "spec": {"app": "crm", "from": {"backup": backup}, "into": "InPlace"},
            "status": {"outcome": outcome}
        });
        Arc::new(serde_json::from_value(restore).unwrap())
    };
    let restores = [
        restore("noon", "2024-03-01T20:00:00Z", None),
        restore("evening", "2024-03-01T20:00:00Z", Some("Aborted")),
        restore("other", "2026-03-02T20:00:00Z", None),
    ];
    let backup = verified(&["2024-03-01T20:00:00Z"])
        .remove(0)
        .or_restores(&restores);
    assert_eq!(backup.held_by, ["Restore noon"]);
}

#[test]
fn a_backup_that_failed_goes_after_a_week_when_a_newer_one_is_verified() {
    let mut candidates = verified(&["2026-05-01T20:00:00Z", "2026-05-02T20:00:00Z"]);
    candidates[0].failed = candidates[0].verified.take();
    let keep = Keep { last: 1, ..NONE };
    let why = |candidates: &[Candidate], now: &str| {
        let reasons = kept(candidates, &keep, &zone("UTC"), at(now));
        reasons.get("2026-05-01T20:00:00Z").cloned()
    };
    let soon = why(&candidates, "2026-05-08T19:59:59Z");
    assert_eq!(soon, Some(vec!["unproven, to 2026-05-08T20:00:00Z".to_owned()]));
    assert_eq!(why(&candidates, "2026-05-08T20:00:00Z"), None);
    let alone = why(&candidates[..1], "2026-06-01T00:00:00Z");
    assert_eq!(
        alone,
        Some(vec!["unproven, and no newer one is verified".to_owned()])
    );
    let older = "2026-04-01T20:00:00Z";
    candidates[1].verified = Some(at(older));
    assert_eq!(why(&candidates, "2026-06-01T00:00:00Z"), alone);
}

#[test]
fn a_backup_of_a_clock_that_was_ahead_is_kept_and_pushes_out_no_other() {
    let candidates = verified(&["2026-03-01T20:00:00Z", "2031-01-01T00:00:00Z"]);
    let keep = Keep {
        last: 1,
        daily: 1,
        ..NONE
    };
    assert_eq!(
        names(&candidates, keep, "UTC"),
        ["2026-03-01T20:00:00Z", "2031-01-01T00:00:00Z"]
    );
}

/// The first day of the span that a day is in.
type FirstDay = fn(Date) -> Date;

/// Says plainly what is to be kept, span by span, with everything written out.
fn reference(candidates: &[Candidate], keep: &Keep, zone: &TimeZone, now: Timestamp) -> BTreeSet<String> {
    let mut kept = BTreeSet::new();
    for candidate in candidates {
        let is_held = !candidate.held_by.is_empty();
        let until = candidate.keep_until.is_some_and(|until| until > now);
        let is_ahead = candidate.verified.is_some_and(|taken| taken > now);
        let is_unproven = candidate.failed.is_some_and(|failed| {
            let is_newer = |taken: Timestamp| taken > failed && taken <= now;
            let mut verified = candidates.iter().filter_map(|other| other.verified);
            now < failed + SignedDuration::from_hours(168) || !verified.any(is_newer)
        });
        if is_held || until || is_ahead || is_unproven {
            kept.insert(candidate.name.clone());
        }
    }
    let counts = |candidate: &&Candidate| candidate.verified.is_some_and(|taken| taken <= now);
    let key = |candidate: &Candidate| (candidate.verified.unwrap(), candidate.name.clone());
    let mut all: Vec<(Timestamp, String)> = candidates.iter().filter(counts).map(key).collect();
    all.sort();
    all.reverse();
    kept.extend(all.iter().take(keep.last.into()).map(|(_, name)| name.clone()));
    let first_day: [(FirstDay, u16); 4] = [
        (|day| day, keep.daily),
        (
            |day| day - i64::from(day.weekday().to_monday_zero_offset()).days(),
            keep.weekly,
        ),
        (Date::first_of_month, keep.monthly),
        (Date::first_of_year, keep.yearly),
    ];
    for (first_day, count) in first_day {
        let mut newest: BTreeMap<Date, (Timestamp, String)> = BTreeMap::new();
        for (taken, name) in &all {
            let day = first_day(taken.to_zoned(zone.clone()).date());
            let entry = newest.entry(day).or_insert_with(|| (*taken, name.clone()));
            *entry = entry.clone().max((*taken, name.clone()));
        }
        kept.extend(
            newest
                .into_iter()
                .rev()
                .take(count.into())
                .map(|(_, (_, name))| name),
        );
    }
    kept
}

fn keeps() -> impl Strategy<Value = Keep> {
    let small = || prop_oneof![2 => Just(0_u16), 3 => 1..9_u16];
    (1..5_u16, small(), small(), small(), small()).prop_map(|(last, daily, weekly, monthly, yearly)| Keep {
        last,
        daily,
        weekly,
        monthly,
        yearly,
    })
}

/// A backup some minutes after the one before, by a clock that may be set meanwhile.
#[derive(Clone, Debug)]
struct Next {
    minutes: i64,
    /// The clock with which it is taken differs by that much from the right one.
    off: i64,
    verified: bool,
    held: bool,
    keep_for: Option<i64>,
}

fn next() -> impl Strategy<Value = Next> {
    (
        prop_oneof![8 => 30..3_000_i64, 2 => 3_000..90_000_i64],
        prop_oneof![12 => Just(0_i64), 1 => -5_000..5_000_i64, 1 => 100_000..2_000_000_i64],
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.05),
        prop::option::weighted(0.05, 0..500_000_i64),
    )
        .prop_map(|(minutes, off, verified, held, keep_for)| Next {
            minutes,
            off,
            verified,
            held,
            keep_for,
        })
}

/// The backups of some years, and when the last one had been taken.
fn history(begin: Timestamp, nexts: &[Next]) -> (Vec<(Timestamp, Candidate)>, Timestamp) {
    let mut now = begin;
    let mut history = Vec::new();
    for (number, next) in nexts.iter().enumerate() {
        now += SignedDuration::from_mins(next.minutes);
        let taken = now + SignedDuration::from_mins(next.off);
        let candidate = Candidate {
            name: format!("b{number:04}"),
            verified: next.verified.then_some(taken),
            failed: (!next.verified).then_some(taken),
            keep_until: next.keep_for.map(|span| now + SignedDuration::from_mins(span)),
            held_by: next
                .held
                .then(|| "Release crm-1".to_owned())
                .into_iter()
                .collect(),
        };
        history.push((now, candidate));
    }
    (history, now)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    /// Over years, with failures, clocks that were set and summer time: what is kept is what the plain reference keeps, what
    /// is kept stays kept when the rest is gone, and the last verified ones are always there.
    #[test]
    fn what_is_kept_is_what_the_reference_keeps(
        keep in keeps(),
        zone_name in prop::sample::select(&ZONES[..]),
        begin in 1_200_000_000..1_800_000_000_i64,
        nexts in prop::collection::vec(next(), 1..150),
    ) {
        let zone = zone(zone_name);
        let (history, now) = history(Timestamp::from_second(begin).unwrap(), &nexts);
        let candidates: Vec<_> = history.into_iter().map(|(_, candidate)| candidate).collect();
        let reasons = kept(&candidates, &keep, &zone, now);
        let names: BTreeSet<_> = reasons.keys().cloned().collect();
        prop_assert_eq!(&names, &reference(&candidates, &keep, &zone, now));
        prop_assert!(reasons.values().all(|why| !why.is_empty()));

        let left: Vec<_> = candidates.iter().filter(|candidate| names.contains(&candidate.name)).cloned().collect();
        let again: BTreeSet<_> = kept(&left, &keep, &zone, now).into_keys().collect();
        prop_assert_eq!(&again, &names, "what was kept goes when the rest has gone");

        let mut verified: Vec<_> = candidates.iter().filter_map(|candidate| Some((candidate.verified?, &candidate.name))).collect();
        verified.retain(|(taken, _)| *taken <= now);
        verified.sort();
        for (_, name) in verified.iter().rev().take(keep.last.into()) {
            prop_assert!(names.contains(*name));
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 100, ..ProptestConfig::default() })]

    /// Removed one by one in any order, as planners do it, each with a newer verified one beside it: what is left is what was
    /// kept at first, nothing more goes, and the newest verified one is always there.
    #[test]
    fn one_removal_after_the_other_ends_with_what_is_kept(
        keep in keeps(),
        begin in 1_200_000_000..1_800_000_000_i64,
        nexts in prop::collection::vec(next(), 1..60),
        order in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let zone = zone("Europe/Warsaw");
        let (history, now) = history(Timestamp::from_second(begin).unwrap(), &nexts);
        let mut left: Vec<_> = history.into_iter().map(|(_, candidate)| candidate).collect();
        let newest = |left: &[Candidate]| {
            let counts = |candidate: &&Candidate| candidate.verified.is_some_and(|taken| taken <= now);
            let newest = left.iter().filter(counts).max_by_key(|candidate| (candidate.verified, candidate.name.clone()));
            newest.map(|newest| newest.name.clone())
        };
        let (first, at_first) = (kept(&left, &keep, &zone, now), newest(&left));
        for index in order {
            let names = kept(&left, &keep, &zone, now);
            let may_go = |candidate: &Candidate| {
                let age = candidate.verified.or(candidate.failed);
                !names.contains_key(&candidate.name)
                    && age.is_some_and(|age| has_newer(&left, (age, &candidate.name), now))
            };
            let going: Vec<_> = left.iter().filter(|candidate| may_go(candidate)).map(|candidate| candidate.name.clone()).collect();
            if going.is_empty() {
                break;
            }
            let gone = index.get(&going).clone();
            left.retain(|candidate| candidate.name != gone);
            prop_assert_eq!(newest(&left), at_first.clone());
        }
        let left: BTreeSet<_> = left.into_iter().map(|candidate| candidate.name).collect();
        prop_assert_eq!(left, first.into_keys().collect::<BTreeSet<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 60, ..ProptestConfig::default() })]

    /// Whether one removes what is not kept after each backup or after years, the same is left: nothing is missed later that
    /// was removed too early. Without clocks that are set, which may put a backup behind one that is gone.
    #[test]
    fn to_remove_after_each_backup_or_at_the_end_leaves_the_same(
        keep in keeps(),
        zone_name in prop::sample::select(&ZONES[..]),
        begin in 1_200_000_000..1_800_000_000_i64,
        nexts in prop::collection::vec(next(), 1..80),
    ) {
        let zone = zone(zone_name);
        let nexts: Vec<_> = nexts.into_iter().map(|next| Next { off: 0, held: false, keep_for: None, ..next }).collect();
        let (history, now) = history(Timestamp::from_second(begin).unwrap(), &nexts);
        let mut left: Vec<Candidate> = Vec::new();
        for (at, candidate) in &history {
            left.push(candidate.clone());
            let names = kept(&left, &keep, &zone, *at);
            left.retain(|candidate| names.contains_key(&candidate.name));
        }
        let all: Vec<_> = history.into_iter().map(|(_, candidate)| candidate).collect();
        let at_the_end: BTreeSet<_> = kept(&all, &keep, &zone, now).into_keys().collect();
        let left: BTreeSet<_> = left.into_iter().map(|candidate| candidate.name).collect();
        prop_assert_eq!(left, at_the_end);
    }
}
