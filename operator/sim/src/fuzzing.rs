//! Whole passes over what the caches hold in the middle of a release, with some of it replaced: the fuzz target in
//! `operator/fuzz` calls this with what libFuzzer finds.
//!
//! The states are those of stories. The data choose one, and what is edited in which of its objects: edited bytes would
//! be no JSON most of the time.

use crate::operator::settings;
use crate::script::Story;
use crate::wire::Fault;
use crate::{Sim, Turns};
use fairway_engine::kinds::Kind;
use fairway_engine::{
    Action, Answer, Cached, Engine, ForKind, Instant, Now, Own, Reading, Request, Resource, for_each, read,
    read_found,
};
use jiff::{SignedDuration, Timestamp};
use kube::core::{DynamicObject, ObjectMeta, Status};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// More passes without a change from outside are a loop.
const PASSES: usize = 500;
/// Most edits of one state.
const EDITS: usize = 4;
/// Longest message of a condition (Kubernetes' own bound).
const MESSAGE: usize = 32 * 1024;

/// Objects by kind and name.
type Objects = BTreeMap<(Kind, String), Value>;

/// What caches hold at a moment of a story.
#[derive(Clone, Debug)]
pub struct State {
    now: Timestamp,
    objects: Objects,
}

/// What caches hold before each command of these stories, and at their ends.
pub fn states(stories: impl IntoIterator<Item = String>) -> Vec<State> {
    let mut states = Vec::new();
    let mut known = BTreeSet::new();
    for story in stories {
        let mut keep = |sim: &Sim| {
            let state = state(sim);
            let values: Vec<_> = state.objects.values().collect();
            if known.insert(json!(values).to_string()) {
                states.push(state);
            }
        };
        let mut sim = Sim::new(Fault::None, Turns::Alone);
        let _ = Story::parse(&story).play(&mut sim, 0, |_, sim| keep(sim));
        keep(&sim);
    }
    states
}

fn state(sim: &Sim) -> State {
    let objects = sim.cluster.objects();
    let named = objects
        .all()
        .into_iter()
        .filter_map(|(kind, meta)| Some((kind, meta.name.clone()?)));
    let json = named.filter_map(|(kind, name)| Some(((kind, name.clone()), objects.json(kind, &name)?)));
    State {
        now: sim.cluster.now,
        objects: json.collect(),
    }
}

/// Reads choices from what libFuzzer invents; zeros when it ends.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A number below that bound, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (usize::from(self.byte()) << 8 | usize::from(self.byte())) % bound.max(1)
    }
}

/// What is put in place of a value.
fn replacement(choices: &mut Choices) -> Value {
    let texts = [
        "",
        "0",
        "-1",
        "crm",
        "crm-1",
        "crm-2",
        "crm-99999999999",
        "now",
        "alice/17",
        "a/b/applied:1",
        "applied:now",
        "9999-12-31T23:59:59Z",
        "-009999-01-02T01:59:59Z",
        "1970-01-01T00:00:00Z",
        "2026-01-01T12:00:03.5Z",
        "18446744073709551615",
        "100000000d",
        "ü“”\u{0}\n$(A)`'\"",
        "True",
        "False",
        "Succeeded",
        "Failed",
        "Recreate",
        "BlueGreen",
        "sha256:00",
        "registry.example.com:5000/a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "http://[::1]:99999/?a=b",
        "::ffff:10.0.0.1",
        r#"{"begun":"3c"}"#,
        r#"{"checks":[["ü",false]],"failure":{"cause":"version","reason":"X","message":""},"serverVersion":"","databaseBytes":18446744073709551615}"#,
        r#"{"evidence":{"level":"","bytes":18446744073709551615,"sha256":"","takenAt":"x","serverVersion":"","fingerprint":"","seconds":-1e308},"failure":null}"#,
        r#"{"outcome":"partial","failure":null,"before":null,"after":"","seconds":1e308,"exitCode":-1,"sqlstate":null,"lastError":"","schemaAhead":true,"failedCheck":""}"#,
        r#"{"outcome":"unknown","failure":{"cause":"environment","reason":"MigrationUnknown","message":"x"},"before":"a","after":"b","seconds":0,"exitCode":0,"sqlstate":"","lastError":"“","schemaAhead":false,"failedCheck":null}"#,
    ];
    let numbers = [
        json!(0),
        json!(1),
        json!(-1),
        json!(7),
        json!(2_147_483_647),
        json!(-2_147_483_648),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e308),
        json!(0.5),
    ];
    match choices.below(8) {
        0 => Value::Null,
        1 => json!([]),
        2 => json!({}),
        3 => json!(choices.byte().is_multiple_of(2)),
        4 => json!("x".repeat(choices.below(40_000))),
        5 => numbers[choices.below(numbers.len())].clone(),
        _ => json!(texts[choices.below(texts.len())]),
    }
}

/// JSON pointers of all values in this one.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                places(
                    member,
                    &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
                    found,
                );
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn edit(objects: &mut Objects, choices: &mut Choices) {
    if objects.is_empty() {
        return;
    }
    let key = |choices: &mut Choices, objects: &Objects| {
        let at = choices.below(objects.len());
        objects.keys().nth(at).cloned()
    };
    let (Some(edited), Some(other)) = (key(choices, objects), key(choices, objects)) else {
        return;
    };
    let place = |choices: &mut Choices, value: &Value| {
        let mut found = Vec::new();
        places(value, "", &mut found);
        found.swap_remove(choices.below(found.len()))
    };
    let source = &objects[&other];
    let copied = source
        .pointer(&place(choices, source))
        .cloned()
        .unwrap_or_default();
    let target = &objects[&edited];
    let at = place(choices, target);
    if at.is_empty() {
        objects.remove(&edited);
        return;
    }
    let action = choices.below(6);
    let new = match action {
        0 => copied,
        _ => replacement(choices),
    };
    let Some(target) = objects.get_mut(&edited) else {
        return;
    };
    let (parent, name) = at.rsplit_once('/').unwrap_or_default();
    let name = name.replace("~1", "/").replace("~0", "~");
    match (target.pointer_mut(parent), action) {
        (Some(Value::Object(members)), 1) => {
            members.remove(&name);
        }
        (Some(Value::Object(members)), 2) => {
            // Names as tenants can choose them: of labels, annotations, containers.
            if let (Some(value), Some(text)) = (members.remove(&name), new.as_str()) {
                members.insert(text.to_owned(), value);
            }
        }
        (Some(Value::Array(items)), 1) => {
            let last = items.last().cloned().unwrap_or_default();
            items.push(last);
        }
        _ => {
            if let Some(value) = target.pointer_mut(&at) {
                *value = new;
            }
        }
    }
}

/// An engine that has listed these objects.
struct List<'a> {
    engine: &'a mut Engine,
    objects: &'a Objects,
    now: Now,
}

impl ForKind for List<'_> {
    fn visit<K: Cached>(&mut self) {
        for ((kind, _), object) in self.objects {
            if *kind == K::KIND {
                put::<K>(self.engine, object, self.now);
            }
        }
        let names = self.objects.keys().filter(|(kind, _)| *kind == K::KIND);
        let listed = names.map(|(_, name)| fairway_engine::NamespacedName::new("shop", name));
        self.engine.listed::<K>(None, &listed.collect(), self.now);
    }
}

fn put<K: Cached>(engine: &mut Engine, object: &Value, now: Now) {
    match read::<K>(object.to_string().as_bytes()) {
        Reading::Object(object) => engine.put(object, now),
        Reading::Unreadable(metadata, why) => {
            engine.put_unreadable::<K>(&metadata, &why, now);
        }
        Reading::Foreign(_) | Reading::Nameless(_) => {}
    }
}

/// Shows the engine one object of its own kinds, as the watch would.
struct Show<'a> {
    engine: &'a mut Engine,
    kind: Kind,
    object: &'a Value,
    now: Now,
}

impl ForKind for Show<'_> {
    fn visit<K: Cached>(&mut self) {
        if K::KIND == self.kind {
            put::<K>(self.engine, self.object, self.now);
        }
    }
}

/// What answers the requests of passes.
struct Cluster<'a> {
    objects: Objects,
    /// What the objects said before the first pass.
    before: BTreeSet<String>,
    version: u64,
    choices: Choices<'a>,
}

impl Cluster<'_> {
    fn written(&mut self) -> Answer {
        self.version += 1;
        let metadata = ObjectMeta {
            uid: Some(format!("written-{}", self.version)),
            resource_version: Some(self.version.to_string()),
            ..ObjectMeta::default()
        };
        Answer::Object(Box::new(DynamicObject {
            types: None,
            metadata,
            data: Value::Null,
        }))
    }

    fn refused(&self, code: u16, reason: &str) -> Answer {
        let status =
            json!({"status": "Failure", "code": code, "reason": reason, "message": "It is refused."});
        let status: Result<Status, _> = serde_json::from_value(status);
        status.map_or(Answer::Lost("no answer"), |status| {
            Answer::Error(Box::new(status))
        })
    }

    fn answer(&mut self, request: &Request, engine: &mut Engine, now: Now) -> Answer {
        match request {
            Request::Write(_) => match self.choices.byte() % 8 {
                0..4 => self.written(),
                4 => self.refused(403, "Forbidden"),
                5 => self.refused(409, "AlreadyExists"),
                6 => self.refused(422, "Invalid"),
                _ => Answer::Lost("no answer came"),
            },
            Request::Commit(object) => {
                let answer = self.written();
                self.commit(object, engine, now);
                answer
            }
            Request::Read(Resource::Of(kind), key) => {
                let found = self.objects.get(&(*kind, key.name.to_string()));
                match found.and_then(|found| read_found(found.to_string().as_bytes()).ok()) {
                    Some(found) => Answer::Object(Box::new(found)),
                    None => self.refused(404, "NotFound"),
                }
            }
            Request::Read(Resource::Claim, _) => self.refused(404, "NotFound"),
            Request::List(..) => Answer::Objects(Vec::new()),
        }
    }

    fn commit(&mut self, object: &Own, engine: &mut Engine, now: Now) {
        let mut json = serde_json::to_value(object).unwrap_or_default();
        for condition in json["status"]["conditions"].as_array().into_iter().flatten() {
            let message = condition["message"].as_str().unwrap_or_default();
            let is_old = self.before.contains(message);
            assert!(
                is_old || message.len() <= MESSAGE,
                "{} bytes: {message}",
                message.len()
            );
            assert!(is_old || !message.is_empty(), "{condition}");
        }
        json["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let kind = object.kind().kind();
        for_each(&mut Show {
            engine,
            kind,
            object: &json,
            now,
        });
        self.objects.insert((kind, object.key().name.to_string()), json);
    }
}

/// Passes end, and say what fits into a condition, whatever stands in the objects of one of these states: the data choose
/// one, what is replaced in it, and what the API server answers.
pub fn planning(states: &[State], data: &[u8]) {
    let mut choices = Choices(data);
    if states.is_empty() {
        return;
    }
    let state = &states[choices.below(states.len())];
    let mut objects = state.objects.clone();
    for _ in 0..=choices.below(EDITS) {
        edit(&mut objects, &mut choices);
    }
    let later = [0, 0, 1, 60, 3600, 2 * 86_400, 400 * 86_400, -60][choices.below(8)];
    let now = Now {
        wall: state.now + SignedDuration::from_secs(later),
        monotonic: Instant::after_origin(Duration::from_secs(1_000)),
    };
    let mut engine = Engine::new(settings([7; 32]), 8);
    for_each(&mut List {
        engine: &mut engine,
        objects: &objects,
        now,
    });
    engine.set_leads(true, now);
    let conditions = objects
        .values()
        .flat_map(|object| object["status"]["conditions"].as_array());
    let said = conditions
        .flatten()
        .filter_map(|condition| condition["message"].as_str());
    let mut cluster = Cluster {
        before: said.map(str::to_owned).collect(),
        objects,
        version: 1_000_000,
        choices,
    };
    let mut passes = 0;
    while let Some(mut pass) = engine.start(now) {
        passes += 1;
        assert!(passes <= PASSES, "{} goes on and on", pass.object());
        let mut answer = Answer::Nothing;
        loop {
            answer = match engine.next(&mut pass, answer, now) {
                Action::Plan(planning) => Answer::Decided(Box::new(planning.decide(now.wall))),
                Action::Probe(_) => Answer::Nothing,
                Action::Ask(request) => cluster.answer(&request, &mut engine, now),
                Action::Done(_) => break,
            };
        }
    }
}
