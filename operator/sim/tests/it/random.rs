//! Random stories under random faults: whatever happens, the invariants hold, it ends, and then nothing is written
//! any more. The seed is fixed; a failing story is shrunk and printed, to be kept among the stories.

use crate::play::{Named, play};
use fairway_engine::kinds::Kind;
use fairway_sim::Turns;
use fairway_sim::wire::Fault;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRng, TestRunner};

const APPS: [&str; 6] = [
    "app web=crm:1 worker=crm:1",
    "app web=crm:1 worker=crm:1 migration=command",
    "app web=crm:1 migration=onStart bake=0s",
    "app worker=crm:1",
    "app web=crm:1 worker=crm:1 worker-strategy=BlueGreen workers=0",
    "app web=crm:1 secret=crm bake=5m",
];

const EVENTS: [&str; 46] = [
    "settle",
    "settle",
    "settle",
    "wait 1s",
    "wait 2s",
    "wait 5s",
    "wait 20s",
    "wait 2m",
    "edit image=crm:1",
    "edit image=crm:2",
    "edit image=crm:2",
    "edit image=crm:3",
    "edit image=crm:4",
    "edit replicas=1",
    "edit replicas=3",
    "edit workers=0",
    "edit workers=2",
    "edit bake=0s",
    "edit bake=1m",
    "edit suspend=true",
    "edit suspend=false",
    "image crm:2 unhealthy",
    "image crm:2 healthy",
    "image crm:3 crashing",
    "image crm:3 starting",
    "image crm:4 unpullable",
    "image crm:4 pullable",
    "migration crm:2 fails",
    "migration crm:2 in-steps",
    "migration crm:3 halfway",
    "kill migration",
    "evict migration",
    "delete migration",
    "annotate crm-2 abort=a",
    "annotate crm-2 rollback=b",
    "annotate crm-2 retry=c",
    "annotate crm-3 rollback=d",
    "annotate crm-3 resolve=applied:1",
    "annotate crm-2 resolve=not-applied:1",
    "database down",
    "database up",
    "operator away",
    "operator back",
    "restore app",
    "pace endpoints=2 linger=6 ready=2",
    "point crm crm-1",
];

/// Everything is fixed at the end, so that the story can end.
const FIXED: &str = "> operator back\n> database up\n> edit suspend=false\n> settle\n";

fn stories() -> impl Strategy<Value = Named> {
    (
        prop::sample::select(&APPS[..]),
        prop::collection::vec(prop::sample::select(&EVENTS[..]), 1..14),
    )
        .prop_map(|(app, events)| {
            let events: String = settled_only_with_a_database(events)
                .map(|event| format!("> {event}\n"))
                .collect();
            Named {
                name: "random".to_owned(),
                text: format!("> {app}\n{events}{FIXED}"),
                number: 0,
            }
        })
}

/// A migration that is under way waits for its database for as long as that is away: nothing settles meanwhile.
fn settled_only_with_a_database(events: Vec<&'static str>) -> impl Iterator<Item = &'static str> {
    let mut is_away = false;
    events.into_iter().map(move |event| {
        match event {
            "database down" => is_away = true,
            "database up" => is_away = false,
            _ => {}
        }
        if is_away && event == "settle" {
            "wait 20m"
        } else {
            event
        }
    })
}

fn faults() -> impl Strategy<Value = (Fault, Turns)> {
    let alone = |fault| (fault, Turns::Alone);
    prop_oneof![
        Just(alone(Fault::None)),
        Just(alone(Fault::Twice)),
        (1..90_usize).prop_map(move |write| alone(Fault::KilledAfter(write))),
        (1..90_usize).prop_map(move |write| alone(Fault::AnswerLost(write))),
        (prop::sample::subsequence(&Kind::ALL[..], 1..4), 1..9_usize)
            .prop_map(move |(kinds, writes)| alone(Fault::Lagging { kinds, writes })),
        Just((Fault::None, Turns::Alternate)),
        Just((Fault::None, Turns::Interleaved)),
    ]
}

#[test]
fn random_stories_keep_every_promise() {
    let cases = std::env::var("RANDOM_STORIES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(300);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(
        config,
        TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    let result = runner.run(&(stories(), faults()), |(story, (fault, turns))| {
        play(&story, fault, turns)
            .map(drop)
            .map_err(|failure| TestCaseError::fail(format!("{}\n{failure}", story.text)))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
