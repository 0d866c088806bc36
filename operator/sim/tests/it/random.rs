//! Random worlds under random faults: Apps are edited in every field, objects of every kind are deleted and created again,
//! users ask for what they like, rights are taken away and given back, at every rung. Whatever happens, the invariants hold, it ends,
//! and then nothing is written any more.
//!
//! Each story follows from a number, its seed. A failing one is shrunk and printed with the command that plays it again;
//! what it shows is kept among the golden stories. `RANDOM_STORIES` says how many are played, `RANDOM_SEED` from which
//! seed on.

use crate::play::{Named, play};
use fairway_engine::kinds::Kind;
use fairway_sim::wire::Fault;
use fairway_sim::{Sim, Turns};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Mutex;

/// Stories of a usual run.
const STORIES: u64 = 2000;

pub(crate) const APPS: [&str; 8] = [
    "app web=crm:1 worker=crm:1",
    "app web=crm:1 worker=crm:1 migration=command",
    "app web=crm:1 migration=onStart bake=0s",
    "app worker=crm:1",
    "app web=crm:1 worker=crm:1 worker-strategy=BlueGreen workers=0",
    "app web=crm:1 secret=crm bake=5m",
    "app web=crm:1 api=crm:1 worker=crm:1 migration=onStart",
    "app web=crm:1 strategy=Recreate migration=command",
];

/// Edits of every field of an App.
pub(crate) const EDITS: [&str; 92] = [
    "image=crm:1",
    "image=crm:2",
    "image=crm:2",
    "image=crm:2",
    "image=crm:3",
    "image=crm:3",
    "image=crm:4",
    "image=crm@sha256:5555555555555555555555555555555555555555555555555555555555555555",
    "web=crm:2",
    "worker=crm:2",
    "worker=crm:3",
    "worker=none",
    "api=crm:1",
    "api=crm:2",
    "api=none",
    "web=none",
    "replicas=1",
    "replicas=3",
    "workers=0",
    "workers=1",
    "workers=2",
    "serves=yes",
    "serves=no",
    "service=crm",
    "service=shop",
    "service=crm-api",
    "api-service=crm-api",
    "api-service=crm",
    "target-port=8080",
    "target-port=3000",
    "strategy=Recreate",
    "strategy=BlueGreen",
    "worker-strategy=Recreate",
    "worker-strategy=BlueGreen",
    "health=none",
    "health=yes",
    "worker-health=yes",
    "worker-health=none",
    "path=/healthz",
    "deadline=1m",
    "deadline=10m",
    "period=10s",
    "successThreshold=1",
    "failureThreshold=1",
    "migration=none",
    "migration=command",
    "migration=onStart",
    "timeout=30s",
    "migrates=worker",
    "migrates=web",
    "command=rake",
    "database=none",
    "database=postgres:17",
    "store=none",
    "store=other",
    "schedule=*/30_*_*_*_*@Europe/Warsaw",
    "schedule=0_3_*_*_*",
    "schedule=61_3_*_*_*@Mars/Olympus",
    "schedule=none",
    r#"/backup/keep={"last":1,"daily":2}"#,
    r#"/backup/keep={"last":2,"weekly":1,"monthly":1,"yearly":1}"#,
    "drain=30s",
    "bake=0s",
    "bake=1m",
    "variable=a",
    "variable=b",
    "agent-node=big",
    "mounts=uploads",
    "/components/web/serves/port=8080",
    "/components/web/health/http/0/port=null",
    "/components/web/health/http/0/status=204",
    r#"/components/web/health/http/0/json={"/ready":"true"}"#,
    "/components/web/health/http/0/scheme=HTTPS",
    "/components/web/health/http/0/host=crm.example",
    r#"/components/web/health/http/0/headers=[{"name":"X-Probe","value":"1"}]"#,
    r#"/components/web/health/http/0/headers=[{"name":"X-Key","valueFrom":{"secretKeyRef":{"name":"crm","key":"probe"}}}]"#,
    r#"/components/web/template/spec/initContainers=[{"name":"init","image":"crm:2"}]"#,
    "/database/connection/urlFrom/secretKeyRef/name=crm-db-2",
    "/database/connection/urlFrom/secretKeyRef/key=uri",
    r#"/database/connection={"host":"db","port":5433,"name":"crm","userFrom":{"secretKeyRef":{"name":"db","key":"user"}},"passwordFrom":{"secretKeyRef":{"name":"db","key":"password"}}}"#,
    "/migration/container=web",
    r#"/migration/checks=[{"name":"rows","sql":"SELECT(1)","expect":"1"}]"#,
    r#"/backup/scratch={"size":"1Gi"}"#,
    r#"/backup/store={"s3":{"bucket":"backups","region":"eu-central-1","addressing":"VirtualHosted","caFrom":{"secretKeyRef":{"name":"ca","key":"ca.pem"}}}}"#,
    r#"/backup/store={"s3":{"bucket":"backups","prefix":"shop","endpoint":"https://minio:9000","credentialsFrom":{"accessKeyId":{"secretKeyRef":{"name":"s3","key":"id"}},"secretAccessKey":{"secretKeyRef":{"name":"s3","key":"secret"}},"sessionToken":{"secretKeyRef":{"name":"s3","key":"token"}}},"caFrom":{"configMapKeyRef":{"name":"ca","key":"ca.pem"}}}}"#,
    r#"/backup/store={"webdav":{"endpoint":"https://dav","prefix":"shop","userFrom":{"secretKeyRef":{"name":"dav","key":"user"}},"passwordFrom":{"secretKeyRef":{"name":"dav","key":"password"}},"caFrom":{"secretKeyRef":{"name":"ca","key":"ca.pem"}}}}"#,
    r#"/agent/resources={"requests":{"cpu":"10m"},"limits":{"memory":"64Mi"}}"#,
    r#"/agent/user={"id":1000}"#,
    r#"/agent/user={"assigned":{}}"#,
    r#"/agent/tolerations=[{"key":"db","operator":"Equal","value":"yes","effect":"NoExecute","tolerationSeconds":60}]"#,
    "/agent/priorityClassName=high",
    r#"/agent/pullSecrets=["registry"]"#,
];

const VERBS: [&str; 6] = [
    "abort",
    "rollback",
    "rollback",
    "retry",
    "resolve=applied:",
    "resolve=not-applied:",
];

const RELEASES: [&str; 6] = ["newest", "newest", "live", "crm-1", "crm-2", "crm-3"];

/// What users do beside editing, and what the environment does.
pub(crate) const EVENTS: [&str; 66] = [
    "edit suspend=true",
    "edit suspend=true",
    "edit suspend=false",
    "edit suspend=false",
    "restore app",
    "app web=crm:1 worker=crm:1 migration=command",
    "app web=crm:2",
    "app web=crm:3 worker=crm:3",
    "apply backup nightly",
    "apply backup weekly release=crm-2 reason=audit keep-until=2026-01-01T13:00:00Z",
    "apply restore noon backup=nightly",
    "apply restore evening backup=weekly",
    "annotate restore noon restore=any:7",
    "annotate restore evening abort=7",
    "rows 7",
    "apply migration once image=crm:1",
    "apply migration twice image=crm:2 release=crm-2 timeout=30s check=SELECT(1)",
    "apply migration thrice image=crm:2 component=worker container=worker",
    "apply migration started image=crm:3 on-start=yes",
    "annotate migration twice resolve=applied:7",
    "annotate app final-backup=1",
    "annotate app final-backup=2",
    "release crm-2 web=crm:2 version=2.0 trigger=ci",
    "release crm-3 web=crm:3",
    "release crm-4 web=crm:3 worker=crm:2",
    "service shop of-others",
    "service crm-api of-others",
    "service ours",
    "point crm crm-1",
    "seize crm crm-1",
    "let-go crm",
    "scale crm-web-1 0",
    "scale crm-web-2 0",
    "image crm:2 unhealthy",
    "image crm:2 healthy",
    "image crm:3 crashing",
    "image crm:3 starting",
    "image crm:4 unpullable",
    "image crm:4 pullable",
    "migration crm:2 fails",
    "migration crm:2 in-steps",
    "migration crm:2 hangs",
    "migration crm:3 halfway",
    "migration crm:3 nothing",
    "kill migration",
    "evict migration",
    "database down",
    "database up",
    "database locked-out",
    "database open",
    "store full",
    "store empty",
    "store locked",
    "store unlocked",
    "store versioned",
    "probes blocked",
    "probes open",
    "health flaps",
    "health steady",
    "quota used-up",
    "quota raised",
    "deployments kept",
    "template crm:2 refused",
    "claim uploads ReadWriteOnce",
    "operator away",
    "operator back",
];

/// Requests that the operator makes often, by verb and kind.
const REQUESTS: [&str; 16] = [
    "get Release",
    "list Pod",
    "watch Pod",
    "watch Deployment",
    "watch Release",
    "create Job",
    "create Pod",
    "create Backup",
    "create Migration",
    "create ControllerRevision",
    "apply Release",
    "apply Deployment",
    "apply Service",
    "scale Deployment",
    "delete Job",
    "status Release",
];

/// Verbs of all requests; with those of every kind, they are the rights of the operator and more.
const VERBS_OF_REQUESTS: [&str; 9] = [
    "get", "list", "watch", "create", "apply", "replace", "scale", "delete", "status",
];

const WAITS: [&str; 7] = [
    "wait 1s", "wait 5s", "wait 20s", "wait 2m", "wait 20m", "wait 2h", "settle",
];

/// Commands by which the API server refuses requests.
const RULES: [&str; 6] = [
    "> refuse",
    "> quota used-up",
    "> deployments kept",
    "> template",
    "> seize",
    "of-others",
];

/// Everything is fixed at the end, so that the story can end.
const FIXED: &str = "> operator back\n> database up\n> database open\n> store empty\n> accept everything\n\
                     > edit suspend=false\n> settle\n";

fn pick(from: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(from).prop_map(str::to_owned)
}

fn event() -> impl Strategy<Value = String> {
    let edits =
        prop::sample::subsequence(&EDITS[..], 1..3).prop_map(|pairs| format!("edit {}", pairs.join(" ")));
    let verbs = (pick(&RELEASES), pick(&VERBS), 0..100_u32).prop_map(|(release, verb, token)| {
        let sign = if verb.contains('=') { "" } else { "=" };
        format!("annotate {release} {verb}{sign}{token}")
    });
    let deletions = (
        prop::sample::select(&Kind::ALL[..]),
        0..6_usize,
        prop::sample::select(&["", " foreground", " orphan"][..]),
    )
        .prop_map(|(kind, number, how)| format!("delete nth {} {number}{how}", kind.as_str().to_lowercase()));
    let any_request = (pick(&VERBS_OF_REQUESTS), prop::sample::select(&Kind::ALL[..]))
        .prop_map(|(verb, kind)| format!("{verb} {}", kind.as_str()));
    let request = prop_oneof![2 => pick(&REQUESTS), 1 => any_request];
    let rights = (pick(&["refuse", "accept"]), request).prop_map(|(how, request)| format!("{how} {request}"));
    prop_oneof![
        8 => edits,
        6 => (1..60_u32).prop_map(|steps| format!("steps {steps}")),
        6 => pick(&WAITS),
        6 => pick(&EVENTS),
        3 => verbs,
        3 => deletions,
        2 => rights,
        1 => (0..4_u32, 0..9_u32, 1..6_u32)
            .prop_map(|(endpoints, linger, ready)| format!("pace endpoints={endpoints} linger={linger} ready={ready}")),
    ]
}

fn stories() -> impl Strategy<Value = String> {
    (
        prop::sample::select(&APPS[..]),
        prop::collection::vec(event(), 1..20),
    )
        .prop_map(|(app, events)| {
            let events: String = settled_only_where_that_ends(events)
                .map(|event| format!("> {event}\n"))
                .collect();
            format!("> {app}\n{events}{FIXED}")
        })
}

/// A migration that is under way waits for its database for as long as that is away, and what is refused is written again
/// and again: nothing settles meanwhile.
fn settled_only_where_that_ends(events: Vec<String>) -> impl Iterator<Item = String> {
    let mut disturbances = BTreeSet::new();
    events.into_iter().map(move |event| {
        let words: Vec<&str> = event.split(' ').collect();
        match words[..] {
            ["database", "up"] => drop(disturbances.remove("down")),
            ["database", "open"] => drop(disturbances.remove("locked-out")),
            ["quota", "raised"] => drop(disturbances.remove("quota")),
            ["quota", _] => {
                disturbances.insert("quota");
            }
            ["refuse" | "deployments" | "template" | "seize" | "service", ..] => {
                disturbances.insert("rules");
            }
            ["database", "down"] => {
                disturbances.insert("down");
            }
            ["database", "locked-out"] => {
                disturbances.insert("locked-out");
            }
            _ => {}
        }
        if event == "settle" && !disturbances.is_empty() {
            "wait 20m".to_owned()
        } else {
            event
        }
    })
}

fn faults() -> impl Strategy<Value = (Fault, Turns)> {
    let alone = |fault| (fault, Turns::Alone);
    prop_oneof![
        3 => Just(alone(Fault::None)),
        1 => Just(alone(Fault::Twice)),
        1 => (1..90_usize).prop_map(move |write| alone(Fault::KilledAfter(write))),
        1 => (1..90_usize).prop_map(move |write| alone(Fault::AnswerLost(write))),
        1 => (prop::sample::subsequence(&Kind::ALL[..], 1..4), 1..9_usize)
            .prop_map(move |(kinds, writes)| alone(Fault::Lagging { kinds, writes })),
        1 => Just((Fault::None, Turns::Alternate)),
        1 => Just((Fault::None, Turns::Interleaved)),
    ]
}

/// How much was played.
#[derive(Clone, Copy, Default)]
struct Figures {
    /// Commands, passes of the engine, and seconds or leaps of everything else.
    steps: usize,
    passes: usize,
    writes: usize,
}

impl Figures {
    fn of(story: &Named, sim: &Sim) -> Self {
        let commands = story.text.lines().count();
        Self {
            steps: commands + sim.steps(),
            passes: sim.passes(),
            writes: sim.traffic.writes.len(),
        }
    }

    fn add(&mut self, more: Self) {
        self.steps += more.steps;
        self.passes += more.passes;
        self.writes += more.writes;
    }
}

/// Plays the story of a seed.
fn play_seed(seed: u64) -> Result<Figures, String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        failure_persistence: None,
        // Bounded by time alone: a story that does not end takes seconds each time, and most take a millisecond.
        max_shrink_iters: u32::MAX,
        max_shrink_time: 30_000,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = (stories(), faults());
    let tree = strategy
        .new_tree(&mut runner)
        .map_err(|reason| reason.to_string())?;
    let figures = Cell::new(Figures::default());
    let result = runner.run_one(tree, |(text, (fault, turns))| {
        // Two leaders at once contradict each other for the minutes in which one of them remembers a refusal.
        let turns = match turns {
            Turns::Alternate if RULES.iter().any(|rule| text.contains(rule)) => Turns::Alone,
            turns => turns,
        };
        let story = Named {
            name: format!("seed {seed}"),
            text,
            number: 0,
        };
        play(&story, fault, turns)
            .map(|played| figures.set(Figures::of(&story, &played.sim)))
            .map_err(TestCaseError::fail)
    });
    match result {
        Ok(_) => Ok(figures.get()),
        Err(TestError::Fail(failure, (text, (fault, turns)))) => Err(format!(
            "The story of seed {seed} fails. To play it again:\n  \
             RANDOM_SEED={seed} RANDOM_STORIES=1 cargo test -p fairway-sim --test it random::\n\
             Shrunk, with {fault:?} and {turns:?}:\n{text}\n{failure}"
        )),
        Err(TestError::Abort(reason)) => Err(reason.to_string()),
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn random_stories_keep_every_promise() {
    let first = number("RANDOM_SEED").unwrap_or_default();
    let count = number("RANDOM_STORIES").unwrap_or(STORIES);
    let seeds = Mutex::new(first..first + count);
    let played = Mutex::new((Figures::default(), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = seeds.lock().unwrap().next();
                    let Some(seed) = seed else { break };
                    let result = play_seed(seed);
                    let (figures, failures) = &mut *played.lock().unwrap();
                    match result {
                        Ok(more) => figures.add(more),
                        Err(failure) => failures.push(failure),
                    }
                    if failures.len() >= 5 {
                        break;
                    }
                }
            });
        }
    });
    let (figures, failures) = played.into_inner().unwrap();
    let Figures {
        steps,
        passes,
        writes,
    } = figures;
    println!(
        "\nfigure: random stories of the seeds {first} to {}, with {steps} steps, of which {passes} are passes of the engine, \
         and {writes} writes",
        first + count - 1
    );
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
