//! When scheduled work runs: five fields of cron, read by the clock of a time zone.
//!
//! `cronexpr` matches dates and hours. What a clock does that is set forward or back is decided here: a run is a time of the
//! local clock, and becomes a moment once. A time that is left out is the first moment after the change; a time that comes
//! twice is the first of the two.

use crate::message::quoting;
use crate::names;
use crate::zone;
use cronexpr::{Crontab, FallbackTimezoneOption, ParseOptions};
use fairway_crds::app::BackupSchedule;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// Least time between two runs.
pub const LEAST_INTERVAL: SignedDuration = SignedDuration::from_mins(5);
/// Longest time by which a run begins later than `cron` says.
const LONGEST_DELAY: SignedDuration = SignedDuration::from_mins(10);
/// The part of the interval to the next run by which a run begins later at most.
const DELAYED_PART: i32 = 10;
/// Years between which runs are looked for: far from the ends of the calendar, where arithmetic fails.
const YEARS: std::ops::Range<i16> = 1900..9900;

/// A schedule, of one object.
#[derive(Clone, Debug)]
pub struct Schedule {
    crontab: Crontab,
    zone: TimeZone,
    /// A hash of the object's name, by which its runs begin a little later than those of others.
    seed: u64,
}

/// Why a schedule cannot be followed: what is wrong and how to fix it, as sentences.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSchedule(String);

impl Schedule {
    /// Reads the schedule of an object.
    ///
    /// # Errors
    /// When a field of cron is not valid, no date matches, runs are too close to each other, or the time zone is unknown.
    pub fn of(schedule: &BackupSchedule, namespace: &str, name: &str) -> Result<Self, InvalidSchedule> {
        let fields = schedule.cron.split_ascii_whitespace().count();
        // A sixth one would be read as a time zone.
        if fields != 5 {
            return Err(InvalidSchedule(format!(
                "backup.schedule.cron has {fields} fields instead of 5. Write minute, hour, day of month, month and day of week, \
                 such as 15 2 * * *, without seconds and without names such as @daily."
            )));
        }
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let crontab = cronexpr::parse_crontab_with(&schedule.cron, options).map_err(|error| {
            let why = quoting("backup.schedule.cron is not valid", Some(&error.to_string()));
            InvalidSchedule(format!("{why} Write it such as 15 2 * * * for 02:15 every day."))
        })?;
        let Some(zone) = zone::of(&schedule.time_zone) else {
            return Err(InvalidSchedule(format!(
                "backup.schedule.timeZone {} is not in the time zone database. Use a name such as Europe/Warsaw, or UTC.",
                schedule.time_zone
            )));
        };
        let hash = names::short_hash(format!("{namespace}/{name}"));
        let schedule = Self {
            crontab,
            zone,
            seed: u64::from_str_radix(&hash, 16).unwrap_or_default(),
        };
        schedule.check()?;
        Ok(schedule)
    }

    /// Whether there are runs, and not too many. Every hour with runs has the same minutes, so its first and its last one tell
    /// how close those of two hours are, if there are two in a row.
    fn check(&self) -> Result<(), InvalidSchedule> {
        // Before a year with a 29 February, and before the first minute of an hour.
        let begin = jiff::civil::date(2023, 12, 31).at(23, 59, 0, 0);
        let Some(first) = self.next_civil(begin) else {
            return Err(InvalidSchedule(
                "No date matches backup.schedule.cron. Write a day that its month has.".to_owned(),
            ));
        };
        let is_close = |before: DateTime, run: DateTime| run.duration_since(before) < LEAST_INTERVAL;
        let same_hour = |run: &DateTime| (run.date(), run.hour()) == (first.date(), first.hour());
        let mut last = first;
        let mut close = false;
        while let Some(run) = self.next_civil(last).filter(|run| !close && same_hour(run)) {
            close = is_close(last, run);
            last = run;
        }
        let an_hour_later = first.saturating_add(SignedDuration::from_hours(1));
        close |= is_close(last, an_hour_later) && self.has_hours_in_a_row(first);
        if close {
            return Err(InvalidSchedule(
                "backup.schedule.cron runs more than once in five minutes. Leave at least five minutes between two runs, such as \
                 */5 * * * *."
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether runs of two hours follow each other: within two days from the first one.
    fn has_hours_in_a_row(&self, first: DateTime) -> bool {
        let end = first.saturating_add(SignedDuration::from_hours(48));
        let runs = std::iter::successors(Some(first), |run| self.next_civil(*run));
        let mut hours: Vec<DateTime> = runs
            .take_while(|run| *run <= end)
            .map(|run| run.date().at(run.hour(), 0, 0, 0))
            .collect();
        hours.dedup();
        hours
            .windows(2)
            .any(|pair| pair[1].duration_since(pair[0]) <= SignedDuration::from_hours(1))
    }

    /// The first run after a moment.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let mut time = self.zone.to_datetime(after);
        loop {
            time = self.next_civil(time)?;
            // In the hour that comes twice, the times of its second pass belong to the first.
            let run = self.moment(time)?;
            if run > after {
                return Some(run);
            }
        }
    }

    /// The last run that is not after a moment.
    pub fn latest(&self, at: Timestamp) -> Option<Timestamp> {
        // Runs are found forwards only: the first one from ever further back, then the last one by halves. There may be
        // thousands between.
        let is_over = |run: &Timestamp| *run <= at;
        let (mut before, mut latest) = [1, 24, 8 * 24, 32 * 24, 367 * 24, 8 * 367 * 24]
            .into_iter()
            .find_map(|hours| {
                let from = at.checked_sub(SignedDuration::from_hours(hours)).ok()?;
                Some((from, self.next(from).filter(is_over)?))
            })?;
        let mut after = at;
        while after.duration_since(before) > SignedDuration::from_secs(1) {
            let middle = before + after.duration_since(before) / 2;
            match self.next(middle).filter(is_over) {
                Some(run) => (before, latest) = (middle, run),
                None => after = middle,
            }
        }
        Some(latest)
    }

    /// When the work of a run begins: a little after it, so that not every object's does at once.
    pub fn start(&self, run: Timestamp) -> Timestamp {
        let interval = self
            .next(run)
            .map_or(LONGEST_DELAY, |next| next.duration_since(run));
        let longest = (interval / DELAYED_PART).min(LONGEST_DELAY).as_secs();
        let part = u64::try_from(longest).unwrap_or_default() + 1;
        let delay = SignedDuration::from_secs(i64::try_from(self.seed % part).unwrap_or_default());
        run.saturating_add(delay).unwrap_or(run)
    }

    /// The next time of the clock that `cron` names, as if no clock was ever set.
    fn next_civil(&self, after: DateTime) -> Option<DateTime> {
        if !YEARS.contains(&after.year()) {
            return None;
        }
        let after = TimeZone::UTC.to_timestamp(after).ok()?;
        Some(self.crontab.find_next(after).ok()?.datetime())
    }

    /// The moment of a time of the clock.
    fn moment(&self, time: DateTime) -> Option<Timestamp> {
        let found = self.zone.to_ambiguous_timestamp(time);
        if !matches!(found.offset(), AmbiguousOffset::Gap { .. }) {
            return found.earlier().ok();
        }
        // The same time by the clock before the change: after the change, by less than what was left out.
        let beyond = found
            .later()
            .ok()?
            .checked_add(SignedDuration::from_secs(1))
            .ok()?;
        let change = self.zone.preceding(beyond).next()?;
        Some(change.timestamp())
    }
}

#[cfg(test)]
mod tests;
