use super::*;
use rstest::rstest;
use std::collections::BTreeSet;

fn schedule(cron: &str, zone: &str) -> Result<Schedule, InvalidSchedule> {
    let schedule = BackupSchedule {
        cron: cron.to_owned(),
        time_zone: zone.to_owned(),
    };
    Schedule::of(&schedule, "shop", "crm")
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[rstest]
#[case("*/5 * * * *")]
#[case("4-59/5 * * * *")]
#[case("1,58 2,5 * * *")]
#[case("58 1 * * *")]
#[case("0 0 1 1 *")]
fn five_minutes_between_two_runs_are_enough(#[case] cron: &str) {
    schedule(cron, "UTC").unwrap();
}

/// The runs after a moment.
fn runs(cron: &str, zone: &str, after: &str, number: usize) -> Vec<String> {
    let schedule = schedule(cron, zone).unwrap();
    let first = schedule.next(at(after));
    let runs = std::iter::successors(first, |run| schedule.next(*run));
    runs.take(number).map(|run| run.to_string()).collect()
}

#[rstest]
#[case::daily("15 2 * * *", "Europe/Warsaw", "2026-01-01T12:00:00Z", &["2026-01-02T01:15:00Z", "2026-01-03T01:15:00Z"])]
#[case::in_summer("15 2 * * *", "Europe/Warsaw", "2026-07-01T12:00:00Z", &["2026-07-02T00:15:00Z"])]
#[case::by_names("0 22 * jan-mar MON,thu", "UTC", "2026-03-30T00:00:00Z", &["2026-03-30T22:00:00Z", "2027-01-04T22:00:00Z"])]
#[case::sunday_is_seven("0 5 * * 7", "UTC", "2026-01-01T00:00:00Z", &["2026-01-04T05:00:00Z"])]
#[case::day_of_month_or_of_week("0 0 13 * 5", "UTC", "2026-02-01T00:00:00Z", &["2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z"])]
#[case::leap_day("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"])]
#[case::not_the_moment_itself("15 2 * * *", "UTC", "2026-01-02T02:15:00Z", &["2026-01-03T02:15:00Z"])]
// 2026-03-29: 02:00 becomes 03:00.
#[case::a_time_that_is_left_out("30 2 * * *", "Europe/Warsaw", "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"])]
#[case::the_first_that_is_left_out("0 2 * * *", "Europe/Warsaw", "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"])]
#[case::several_left_out("*/30 2,3 * * *", "Europe/Warsaw", "2026-03-29T00:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:00:00Z"])]
// 2026-10-25: 03:00 becomes 02:00.
#[case::a_time_that_comes_twice("30 2 * * *", "Europe/Warsaw", "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"])]
#[case::in_its_second_pass("*/30 * * * *", "Europe/Warsaw", "2026-10-25T00:31:00Z", &["2026-10-25T02:00:00Z"])]
// The day that Samoa left out.
#[case::a_day_that_is_left_out("0 6 30 * *", "Pacific/Apia", "2011-12-01T00:00:00Z", &["2011-12-30T10:00:00Z"])]
fn runs_follow_the_clock_of_the_zone(
    #[case] cron: &str,
    #[case] zone: &str,
    #[case] after: &str,
    #[case] expected: &[&str],
) {
    assert_eq!(runs(cron, zone, after, expected.len()), expected);
}

#[rstest]
#[case::six_fields("0 15 2 * * *", "UTC", "has 6 fields instead of 5")]
#[case::a_zone_as_a_field("15 2 * * * Europe/Warsaw", "UTC", "has 6 fields instead of 5")]
#[case::a_name("@reboot", "UTC", "without names such as @daily")]
#[case::nothing("", "UTC", "has 0 fields instead of 5")]
#[case::minute_60("60 2 * * *", "UTC", "backup.schedule.cron is not valid")]
#[case::a_step_of_zero("*/0 2 * * *", "UTC", "backup.schedule.cron is not valid")]
#[case::hashed("H 2 * * *", "UTC", "backup.schedule.cron is not valid")]
#[case::no_date("0 0 30 2 *", "UTC", "No date matches")]
#[case::each_minute("* * * * *", "UTC", "Leave at least five minutes")]
#[case::close_at_the_hour("0,3 * * * *", "UTC", "Leave at least five minutes")]
#[case::close_across_hours("1,58 * * * *", "UTC", "Leave at least five minutes")]
#[case::close_across_midnight("1,58 0,23 * * *", "UTC", "Leave at least five minutes")]
#[case::close_across_some_hours("1,58 2,5,6 * * *", "UTC", "Leave at least five minutes")]
#[case::no_zone(
    "15 2 * * *",
    "Mars/Olympus",
    "timeZone Mars/Olympus is not in the time zone database"
)]
#[case::a_path("15 2 * * *", "../../etc/passwd", "is not in the time zone database")]
fn what_cannot_be_followed_is_refused_with_the_fix(
    #[case] cron: &str,
    #[case] zone: &str,
    #[case] message: &str,
) {
    let refused = schedule(cron, zone).unwrap_err().to_string();
    assert!(refused.contains(message), "{refused}");
    assert!(refused.ends_with('.'), "{refused}");
}

#[rstest]
#[case("15 2 * * *", "2026-01-02T02:15:00Z", Some("2026-01-02T02:15:00Z"))]
#[case("15 2 * * *", "2026-01-02T02:14:59Z", Some("2026-01-01T02:15:00Z"))]
#[case("0 0 29 2 *", "2026-01-01T00:00:00Z", Some("2024-02-29T00:00:00Z"))]
#[case("*/5 * * * *", "2026-01-01T00:07:00Z", Some("2026-01-01T00:05:00Z"))]
#[case("*/5 * * * *", "-000001-01-01T00:07:00Z", None)]
fn the_latest_run_is_not_after_the_moment(
    #[case] cron: &str,
    #[case] moment: &str,
    #[case] expected: Option<&str>,
) {
    let schedule = schedule(cron, "UTC").unwrap();
    assert_eq!(schedule.latest(at(moment)), expected.map(at));
}

#[test]
fn the_ends_of_the_calendar_have_no_runs() {
    let schedule = schedule("15 2 * * *", "Europe/Warsaw").unwrap();
    for moment in [Timestamp::MIN, Timestamp::MAX] {
        assert_eq!(schedule.next(moment), None);
        assert_eq!(schedule.latest(moment), None);
    }
}

#[rstest]
#[case::daily("15 2 * * *", 600)]
#[case::hourly("0 * * * *", 360)]
#[case::each_five_minutes("*/5 * * * *", 30)]
fn a_run_begins_a_little_later_each_time_alike(#[case] cron: &str, #[case] longest: i64) {
    let after = at("2026-01-01T12:00:00Z");
    let mut delays = BTreeSet::new();
    for name in 0..200 {
        let schedule = BackupSchedule {
            cron: cron.to_owned(),
            time_zone: "UTC".to_owned(),
        };
        let schedule = Schedule::of(&schedule, "shop", &format!("crm-{name}")).unwrap();
        let delay = |run: Timestamp| schedule.start(run).duration_since(run).as_secs();
        let first = schedule.next(after).unwrap();
        let second = schedule.next(first).unwrap();
        assert_eq!(delay(first), delay(second));
        assert!((0..=longest).contains(&delay(first)), "{}", delay(first));
        assert!(schedule.start(first) < second);
        delays.insert(delay(first));
    }
    assert!(delays.len() > 15, "they are spread: {delays:?}");
}
