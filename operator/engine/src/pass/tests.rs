use super::*;
use crate::expectations::EXPECTATION_TIMEOUT;
use crate::kinds::Kind;
use crate::kinds::{App, Deployment, Job, Release};
use crate::request::Resource;
use fairway_plan::ObjectRef;
use fairway_plan::object::{self, Object};
use fairway_plan::observed::Settings;
use kube::core::Status;
use rstest::rstest;
use serde_json::{Value, json};

const NOW: Now = Now {
    wall: jiff::Timestamp::UNIX_EPOCH,
    monotonic: Instant::after_origin(Duration::from_secs(100)),
};

fn app() -> NamespacedName {
    NamespacedName::new("shop", "crm")
}

fn app_object() -> App {
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "App",
        "metadata": {"namespace": "shop", "name": "crm", "uid": "a-1", "resourceVersion": "1", "generation": 1},
        "spec": {"components": []},
    }))
    .unwrap()
}

/// What an engine knows of one App.
fn state() -> State {
    let settings = Settings {
        agent_image: "fairway".into(),
        agent_pull_secrets: Vec::new(),
        agent_pull_policy: "IfNotPresent".into(),
        agent_pods: Default::default(),
        agent_of_app: Default::default(),
        probe_key: fairway_plan::probe_token::ProbeKey::new([0; 32]),
    };
    let mut state = State::new(settings, 1);
    state.caches.put(app_object());
    state
}

fn deployment(version: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "namespace": "shop", "name": "crm-web-2", "labels": {"fairway.dev/app": "crm"}, "uid": "d-2",
            "annotations": {"fairway.dev/applied-hash": "h1"}, "resourceVersion": version,
        },
    })
}

fn desired_deployment() -> Box<Object> {
    let mut object: Deployment = serde_json::from_value(deployment("0")).unwrap();
    (object.metadata.uid, object.metadata.resource_version) = (None, None);
    Box::new(Object::Deployment(object))
}

fn desired_service() -> Box<Object> {
    let service = json!({"metadata": {
        "namespace": "shop", "name": "crm", "annotations": {"fairway.dev/applied-hash": "h2"},
    }});
    Box::new(Object::Service(serde_json::from_value(service).unwrap()))
}

fn desired_job(owner: Option<&str>) -> Box<Object> {
    let mut job = existing_job(owner.unwrap_or_default(), "crm");
    if owner.is_none() {
        job["metadata"]["ownerReferences"] = json!([]);
    }
    Box::new(Object::Job(serde_json::from_value(job).unwrap()))
}

fn existing_job(owner: &str, app: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "namespace": "shop", "name": "crm-2-run-1", "uid": "j-1", "resourceVersion": "7",
            "labels": {"fairway.dev/app": app},
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner}],
        },
    })
}

fn reference(kind: object::Kind, name: &str, uid: &str) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: "shop".into(),
        name: name.into(),
        uid: uid.into(),
        resource_version: Some("7".into()),
    }
}

fn stored(object: Value) -> Answer {
    Answer::Object(Box::new(serde_json::from_value(object).unwrap()))
}

fn error(code: u16, reason: &str) -> Answer {
    Answer::Error(Box::new(Status {
        code,
        reason: reason.to_owned(),
        message: format!("the API server says {reason}"),
        ..Status::default()
    }))
}

/// A pass of the App that executes these steps and commits nothing, at its first request.
fn executing(state: &mut State, steps: impl IntoIterator<Item = Step>) -> (Pass, Action) {
    let mut pass = Pass::new(ObjectKey::new(OwnKind::App, app()), NOW.monotonic, Duration::ZERO);
    let decided = Decided {
        object: Own::App(Arc::new(app_object())),
        steps: steps.into_iter().collect(),
        commit: None,
        wake: Wake::OnChange,
        probes: None,
    };
    let action = pass.execute(state, decided, NOW);
    (pass, action)
}

/// Executes one step and gives its answer.
fn one(state: &mut State, step: Step, answer: Answer) -> (Pass, Action) {
    let (mut pass, asked) = executing(state, [step]);
    assert!(matches!(asked, Action::Ask(Request::Write(_))), "{asked:?}");
    let action = pass.next(state, answer, NOW);
    (pass, action)
}

fn ended(action: Action) -> Ended {
    match action {
        Action::Done(ended) => ended,
        other => panic!("{other:?}"),
    }
}

fn failure(action: Action) -> PassError {
    match ended(action).result {
        PassResult::Failed(error, _) => error,
        other => panic!("{other:?}"),
    }
}

/// Whether the pass has planned again, that is, has learned something.
fn plans_again(action: &Action) -> bool {
    matches!(action, Action::Plan(_))
}

fn is_stale(state: &mut State) -> bool {
    let work = ObjectKey::new(OwnKind::App, app());
    let view = state.caches.read(&app(), &work, NOW.monotonic, |_, _| Some(()));
    matches!(view, CacheRead::Stale(_))
}

fn refusal(state: &State, write: &str) -> Option<fairway_plan::observed::Refusal> {
    state.answers.known(&app(), NOW.monotonic).refused.remove(write)
}

#[test]
fn what_was_applied_must_be_seen_before_the_next_plan() {
    let mut state = state();
    let (_, action) = one(
        &mut state,
        Step::Apply(desired_deployment()),
        stored(deployment("5")),
    );
    let ended = ended(action);
    assert_eq!((ended.result, ended.switched), (unless_seen(), None));
    assert!(is_stale(&mut state));
}

/// How a pass ends whose write has an event to come: no event may ever come of an object that is deleted between two lists.
fn unless_seen() -> PassResult {
    PassResult::At(NOW.monotonic + EXPECTATION_TIMEOUT)
}

#[test]
fn an_event_faster_than_its_answer_holds_nothing() {
    let mut state = state();
    let seen: Deployment = serde_json::from_value(deployment("5")).unwrap();
    state.caches.put(seen);
    one(
        &mut state,
        Step::Apply(desired_deployment()),
        stored(deployment("5")),
    );
    assert!(!is_stale(&mut state));
}

#[test]
fn an_applied_service_is_a_switch() {
    let mut state = state();
    let service = json!({"metadata": {"namespace": "shop", "name": "crm", "resourceVersion": "5"}});
    let (_, action) = one(&mut state, Step::Apply(desired_service()), stored(service));
    assert_eq!(ended(action).switched, Some(Duration::ZERO));
}

#[test]
fn a_refusal_is_planned_on_once_and_then_fails_the_pass() {
    let mut state = state();
    let step = || Step::Apply(desired_service());
    let (_, action) = one(&mut state, step(), error(422, "Invalid"));
    assert!(plans_again(&action), "{action:?}");
    let known = refusal(&state, "Service/crm#h2").expect("the planner sees it");
    assert!(!known.may_pass);

    let (_, action) = one(&mut state, step(), error(422, "Invalid"));
    let ended = ended(action);
    let announced: Vec<_> = ended
        .announcements
        .iter()
        .map(|event| (&*event.reason, &*event.message))
        .collect();
    let message = "The API server refuses to write Service crm: “the API server says Invalid”.";
    assert_eq!(
        announced,
        [("WriteRefused", message)],
        "a planner that insists is announced"
    );
    assert!(matches!(
        ended.result,
        PassResult::Failed(PassError::Refused { .. }, _)
    ));

    let (_, action) = one(&mut state, step(), error(422, "Invalid"));
    assert!(self::ended(action).announcements.is_empty(), "announced once");
}

#[test]
fn a_refused_step_stops_those_behind_it() {
    let mut state = state();
    let steps = [Step::Apply(desired_deployment()), Step::Apply(desired_service())];
    let (mut pass, _) = executing(&mut state, steps);
    let action = pass.next(&mut state, error(422, "Invalid"), NOW);
    assert!(plans_again(&action), "{action:?}");
    assert!(refusal(&state, "Deployment/crm-web-2#h1").is_some());
}

#[test]
fn a_refused_write_is_attempted_again_in_time() {
    let mut state = state();
    one(
        &mut state,
        Step::Apply(desired_service()),
        error(403, "Forbidden"),
    );
    let (_, action) = executing(&mut state, []);
    let forgotten = state.answers.forgotten(&app(), NOW.monotonic).unwrap();
    assert_eq!(ended(action).result, PassResult::At(forgotten));
}

#[test]
fn a_passed_dry_run_is_planned_on_once_and_persists_nothing() {
    let mut state = state();
    let step = || Step::DryRun(desired_deployment());
    let (_, action) = one(&mut state, step(), stored(deployment("5")));
    assert!(
        plans_again(&action),
        "nothing in the cluster will wake the planner"
    );
    assert!(!is_stale(&mut state));
    let known = state.answers.known(&app(), NOW.monotonic).dry_run_passed;
    assert!(known.contains("Deployment/crm-web-2#h1"), "{known:?}");
    let (_, action) = one(&mut state, step(), stored(deployment("5")));
    assert_eq!(ended(action).result, PassResult::OnChange);
}

#[test]
fn f11_warnings_of_a_passed_dry_run_are_known() {
    let mut state = state();
    let answer = || Answer::Passed(vec!["deprecated".to_owned()]);
    let (_, action) = one(&mut state, Step::DryRun(desired_deployment()), answer());
    assert!(plans_again(&action), "{action:?}");
    let warnings = |state: &State| state.answers.known(&app(), NOW.monotonic).warnings;
    assert_eq!(warnings(&state)["Deployment/crm-web-2#h1"], ["deprecated"]);
    let (_, action) = one(&mut state, Step::DryRun(desired_deployment()), answer());
    assert_eq!(ended(action).result, PassResult::OnChange, "it is no news again");
    assert_eq!(warnings(&state).len(), 1);
}

#[rstest]
#[case::of_the_same_owner(Some("m-2"), existing_job("m-2", "crm"))]
#[case::without_an_owner_of_the_same_app(None, existing_job("someone", "crm"))]
fn what_exists_and_is_ours_is_adopted(#[case] owner: Option<&str>, #[case] existing: Value) {
    let mut state = state();
    let step = Step::Create(desired_job(owner));
    let (mut pass, action) = one(&mut state, step, error(409, "AlreadyExists"));
    assert!(
        matches!(&action, Action::Ask(Request::Read(Resource::Of(Kind::Job), key)) if &*key.name == "crm-2-run-1"),
        "{action:?}"
    );
    let action = pass.next(&mut state, stored(existing), NOW);
    assert_eq!(ended(action).result, unless_seen());
    assert!(is_stale(&mut state), "it must be seen before the next plan");
}

#[rstest]
#[case::of_another_owner(Some("m-2"), existing_job("someone", "crm"))]
#[case::without_an_owner_of_another_app(None, existing_job("someone", "cms"))]
fn a_taken_name_is_a_refusal_that_may_pass(#[case] owner: Option<&str>, #[case] existing: Value) {
    let mut state = state();
    let step = Step::Create(desired_job(owner));
    let (mut pass, _) = one(&mut state, step, error(409, "AlreadyExists"));
    let action = pass.next(&mut state, stored(existing), NOW);
    assert!(plans_again(&action), "{action:?}");
    let known = refusal(&state, "Job/crm-2-run-1#").unwrap();
    assert_eq!(
        known.message,
        "Job crm-2-run-1 already exists and was not created by Fairway for this object. Delete or rename it."
    );
    assert!(known.may_pass);
}

#[test]
fn a_name_that_is_being_freed_is_waited_for() {
    let mut state = state();
    let step = Step::Create(desired_job(Some("m-2")));
    let (mut pass, _) = one(&mut state, step, error(409, "AlreadyExists"));
    let mut ending = existing_job("m-2", "crm");
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let action = pass.next(&mut state, stored(ending), NOW);
    assert!(matches!(failure(action), PassError::BeingDeleted { .. }));
    assert!(refusal(&state, "Job/crm-2-run-1#").is_none());
}

#[rstest]
fn scaling_or_deleting_what_is_gone_or_replaced_is_fine(
    #[values((404, "NotFound"), (409, "Conflict"))] (code, reason): (u16, &str),
    #[values(false, true)] scales: bool,
) {
    let mut state = state();
    let target = reference(object::Kind::Deployment, "crm-web-2", "d-2");
    let step = if scales {
        Step::Scale(target, 0)
    } else {
        Step::Delete(target)
    };
    let (_, action) = one(&mut state, step, error(code, reason));
    assert_eq!(ended(action).result, PassResult::OnChange);
}

#[test]
fn an_object_that_ends_later_is_awaited_in_the_version_in_which_it_began_to() {
    let mut state = state();
    let mut ending = existing_job("m-2", "crm");
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let seen: Job = serde_json::from_value(ending.clone()).unwrap();
    let step = || Step::Delete(reference(object::Kind::Job, "crm-2-run-1", "j-1"));
    state.caches.put(seen);
    one(&mut state, step(), stored(ending.clone()));
    assert!(!is_stale(&mut state), "its event was faster than the answer");
    ending["metadata"]["resourceVersion"] = json!("8");
    one(&mut state, step(), stored(ending));
    assert!(is_stale(&mut state));
}

#[test]
fn the_deletion_of_a_backup_is_an_event_of_its_app() {
    let mut state = state();
    let backup: crate::kinds::Backup = serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup",
        "metadata": {"namespace": "shop", "name": "nightly", "uid": "b-1", "resourceVersion": "7"},
        "spec": {"app": "crm"},
        "status": {"removal": {
            "since": "2026-01-01T00:00:00Z", "state": "Removed", "objects": 2, "bytes": 7,
            "set": {"store": {"volume": {"claimName": "backups"}}, "path": "shop/crm/nightly-b"},
        }},
    }))
    .unwrap();
    state.caches.put(backup.clone());
    let mut pass = Pass::new(
        ObjectKey::new(OwnKind::Backup, NamespacedName::new("shop", "nightly")),
        NOW.monotonic,
        Duration::ZERO,
    );
    pass.app = app();
    let decided = Decided {
        object: Own::Backup(Arc::new(backup)),
        steps: vec![Step::Delete(reference(object::Kind::Backup, "nightly", "b-1"))],
        commit: None,
        wake: Wake::OnChange,
        probes: None,
    };
    let asked = pass.execute(&mut state, decided, NOW);
    assert!(matches!(asked, Action::Ask(Request::Write(_))), "{asked:?}");
    let action = pass.next(&mut state, Answer::Done, NOW);
    let ended = ended(action);
    let [announcement] = &*ended.announcements else {
        panic!("{:?}", ended.announcements);
    };
    assert_eq!(announcement.about.kind.as_deref(), Some("App"));
    assert_eq!(announcement.reason, "BackupRemoved");
    assert!(
        announcement
            .message
            .starts_with("Retention has removed Backup nightly: 2 files"),
        "{}",
        announcement.message
    );
}

#[test]
fn what_was_changed_meanwhile_is_planned_again_without_a_failure() {
    let mut state = state();
    let (_, action) = one(&mut state, Step::Apply(desired_service()), error(409, "Conflict"));
    assert_eq!(
        ended(action).result,
        PassResult::At(NOW.monotonic + CONFLICT_RETRY)
    );
    assert!(refusal(&state, "Service/crm#h2").is_none());
}

#[test]
fn nothing_is_created_in_a_terminating_namespace_for_a_while() {
    let mut state = state();
    let status: Status = serde_json::from_value(json!({
        "code": 403, "reason": "Forbidden", "message": "…",
        "details": {"causes": [{"reason": "NamespaceTerminating", "message": "…"}]},
    }))
    .unwrap();
    let step = || Step::Create(desired_job(Some("m-2")));
    let (_, action) = one(&mut state, step(), Answer::Error(Box::new(status)));
    let until = state.answers.terminating("shop", NOW.monotonic).unwrap();
    assert_eq!(ended(action).result, PassResult::At(until));
    let (_, action) = executing(&mut state, [step()]);
    assert_eq!(ended(action).result, PassResult::At(until), "nothing is asked");
    let target = reference(object::Kind::Job, "crm-2-run-1", "j-1");
    let (_, action) = executing(&mut state, [Step::Delete(target)]);
    assert!(matches!(action, Action::Ask(_)), "what is there may be deleted");
}

#[rstest]
#[case::overloaded(error(503, "ServiceUnavailable"))]
#[case::lost(Answer::Lost("no answer"))]
fn without_an_answer_the_pass_backs_off_and_learns_nothing(#[case] answer: Answer) {
    let mut state = state();
    let (_, action) = one(&mut state, Step::Apply(desired_deployment()), answer);
    assert!(matches!(failure(action), PassError::Unavailable { .. }));
    assert!(refusal(&state, "Deployment/crm-web-2#h1").is_none());
    assert_eq!(
        state.queue.next_timer(),
        Some(NOW.monotonic + Duration::from_millis(200))
    );
}

#[test]
fn a_pass_that_achieved_nothing_leaves_the_backoff_as_it_is() {
    let mut state = state();
    let step = || Step::Apply(desired_deployment());
    let delay = |action| match ended(action).result {
        PassResult::Failed(_, delay) => delay.as_millis(),
        other => panic!("{other:?}"),
    };
    assert_eq!(delay(one(&mut state, step(), error(503, "X")).1), 200);
    let written: Deployment = serde_json::from_value(deployment("5")).unwrap();
    let kind = Kind::Deployment;
    state
        .caches
        .expect_write(&app(), kind, &written.metadata, NOW.monotonic);
    let mut stale = Pass::new(ObjectKey::new(OwnKind::App, app()), NOW.monotonic, Duration::ZERO);
    let action = stale.next(&mut state, Answer::Nothing, NOW);
    assert!(matches!(ended(action).result, PassResult::At(_)));
    assert_eq!(delay(one(&mut state, step(), error(503, "X")).1), 400);
    one(&mut state, step(), stored(deployment("6")));
    assert_eq!(
        delay(one(&mut state, step(), error(503, "X")).1),
        200,
        "it went through"
    );
}

#[test]
fn a_conflict_in_every_pass_becomes_a_failure_that_backs_off() {
    let mut state = state();
    let mut conflict = || one(&mut state, Step::Apply(desired_service()), error(409, "Conflict")).1;
    for _ in 0..3 {
        let retry = PassResult::At(NOW.monotonic + CONFLICT_RETRY);
        assert_eq!(ended(conflict()).result, retry);
    }
    for delay in [1600, 3200] {
        let error = PassError::Unavailable {
            object: "Service crm".to_owned(),
            message: "it was changed meanwhile".to_owned(),
        };
        assert_eq!(
            ended(conflict()).result,
            PassResult::Failed(error, Duration::from_millis(delay))
        );
    }
    one(
        &mut state,
        Step::Apply(desired_deployment()),
        stored(deployment("5")),
    );
    let (_, action) = one(&mut state, Step::Apply(desired_service()), error(409, "Conflict"));
    assert_eq!(
        ended(action).result,
        PassResult::At(NOW.monotonic + CONFLICT_RETRY),
        "a completed pass resets the backoff"
    );
}

#[test]
fn a_status_conflict_in_every_pass_becomes_a_failure_that_backs_off() {
    let mut state = state();
    let mut conflict = || committing(&mut state).next(&mut state, error(409, "Conflict"), NOW);
    for _ in 0..3 {
        assert!(matches!(ended(conflict()).result, PassResult::At(_)));
    }
    assert!(matches!(failure(conflict()), PassError::StatusNotWritten { .. }));
}

/// A pass of the App from its beginning, at its request to commit the status.
fn committing(state: &mut State) -> Pass {
    let mut pass = Pass::new(ObjectKey::new(OwnKind::App, app()), NOW.monotonic, Duration::ZERO);
    let Action::Plan(planning) = pass.next(state, Answer::Nothing, NOW) else {
        panic!("it plans")
    };
    let decided = Box::new(planning.decide(NOW.wall));
    let action = pass.next(state, Answer::Decided(decided), NOW);
    assert!(matches!(action, Action::Ask(Request::Commit(_))), "{action:?}");
    pass
}

#[test]
fn a_committed_status_is_announced_and_must_be_seen() {
    let mut state = state();
    let mut pass = committing(&mut state);
    let meta = json!({"metadata": {"namespace": "shop", "name": "crm", "resourceVersion": "2"}});
    let ended = ended(pass.next(&mut state, stored(meta), NOW));
    assert_eq!(ended.announcements.len(), 1, "{ended:?}");
    assert_eq!(ended.announcements[0].about.name.as_deref(), Some("crm"));
    let mut next = Pass::new(ObjectKey::new(OwnKind::App, app()), NOW.monotonic, Duration::ZERO);
    let Action::Done(waits) = next.next(&mut state, Answer::Nothing, NOW) else {
        panic!("older than our last write")
    };
    assert!(matches!(waits.result, PassResult::At(_)));
}

#[rstest]
#[case(409, "Conflict")]
#[case(404, "NotFound")]
fn a_status_that_comes_too_late_is_planned_again(#[case] code: u16, #[case] reason: &str) {
    let mut state = state();
    let mut pass = committing(&mut state);
    let ended = ended(pass.next(&mut state, error(code, reason), NOW));
    assert_eq!(ended.result, PassResult::At(NOW.monotonic + CONFLICT_RETRY));
    assert!(
        ended.announcements.is_empty(),
        "what is not recorded is not announced"
    );
}

#[test]
fn a_release_looks_up_services_and_claims_that_no_watch_shows() {
    let mut state = state();
    let release: Release = serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Release",
        "metadata": {"namespace": "shop", "name": "crm-1", "uid": "r-1", "resourceVersion": "2"},
        "spec": {"app": "crm", "revision": 1},
    }))
    .unwrap();
    state.caches.put(release);
    let mut app = app_object();
    app.spec = serde_json::from_value(json!({"components": [{
        "name": "web", "serves": {"service": "crm", "port": 80, "targetPort": 3000},
        "template": {"spec": {
            "containers": [{"name": "web", "image": "crm:1"}],
            "volumes": [{"name": "files", "persistentVolumeClaim": {"claimName": "uploads"}}],
        }},
    }]}))
    .unwrap();
    let snapshot = fairway_plan::snapshot::Snapshot::of(&app.spec);
    let mut snapshot = fairway_plan::build::control::controller_revision(&app, "crm-1", 1, &snapshot);
    snapshot.metadata.uid = Some("s-1".into());
    snapshot.metadata.resource_version = Some("3".into());
    state.caches.put(snapshot);
    let work = ObjectKey::new(OwnKind::Release, NamespacedName::new("shop", "crm-1"));
    let start = || Pass::new(work.clone(), NOW.monotonic, Duration::ZERO);

    let mut pass = start();
    let read = |action: &Action| match action {
        Action::Ask(Request::Read(resource, key)) => Some((*resource, key.name.to_string())),
        _ => None,
    };
    let asked = pass.next(&mut state, Answer::Nothing, NOW);
    assert_eq!(
        read(&asked),
        Some((Resource::Of(Kind::Service), "crm".to_owned())),
        "{asked:?}"
    );
    let asked = pass.next(&mut state, error(404, "NotFound"), NOW);
    assert_eq!(read(&asked), Some((Resource::Claim, "uploads".to_owned())));
    let claim = json!({"metadata": {"namespace": "shop", "name": "uploads"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
    assert!(plans_again(&pass.next(&mut state, stored(claim), NOW)));

    assert!(
        plans_again(&start().next(&mut state, Answer::Nothing, NOW)),
        "answers hold for a burst of passes"
    );
    let later = Now {
        monotonic: NOW.monotonic + Duration::from_secs(1),
        ..NOW
    };
    let mut pass = start();
    let asked = pass.next(&mut state, Answer::Nothing, later);
    assert_eq!(
        read(&asked),
        Some((Resource::Of(Kind::Service), "crm".to_owned()))
    );
    assert!(matches!(
        failure(pass.next(&mut state, error(503, "X"), later)),
        PassError::NotRead { .. }
    ));
}

#[test]
fn a_wake_is_never_before_its_time_and_never_at_once() {
    let moment: jiff::Timestamp = "1970-01-01T00:00:01.2345Z".parse().unwrap();
    let due = timer(Wake::At(moment), NOW).unwrap().since(NOW.monotonic);
    assert!(due >= Duration::from_micros(1_234_500) && due < Duration::from_millis(1237));
    let past = Now { wall: moment, ..NOW };
    let due = timer(Wake::At(NOW.wall), past).unwrap();
    assert_eq!(
        due.since(NOW.monotonic),
        MIN_TIMER,
        "or a processor would be kept busy"
    );
    assert_eq!(timer(Wake::OnChange, NOW), None);
}

/// Commits a status of this object, whose reason has changed.
fn committed(object: Own, rung: Option<&'static str>, outcome: Option<&str>) -> Ended {
    let mut state = state();
    let mut pass = Pass::new(
        ObjectKey::new(object.kind(), object.key()),
        NOW.monotonic,
        Duration::ZERO,
    );
    pass.app = app();
    let announcement = Announcement {
        about: object.reference(),
        severity: crate::announcement::Severity::Normal,
        reason: "BackingUp".to_owned(),
        message: "Dumping the database.".to_owned(),
    };
    let commit = Commit {
        object: object.clone(),
        announcement: Some(announcement),
        warning: None,
        outcome: outcome.map(str::to_owned),
        rung,
    };
    let decided = Decided {
        object,
        steps: Vec::new(),
        commit: Some(Box::new(commit)),
        wake: Wake::OnChange,
        probes: None,
    };
    let asked = pass.execute(&mut state, decided, NOW);
    assert!(matches!(asked, Action::Ask(Request::Commit(_))), "{asked:?}");
    ended(pass.next(&mut state, stored(deployment("5")), NOW))
}

#[rstest]
#[case::at_a_rung(Some("BackedUp"), None, Some("BackedUp"))]
#[case::at_its_end(None, Some("Succeeded"), Some("Succeeded"))]
#[case::before_it_is_taken_up(None, None, None)]
fn a_release_whose_reason_has_changed_has_come_to_a_step(
    #[case] rung: Option<&'static str>,
    #[case] outcome: Option<&str>,
    #[case] step: Option<&str>,
) {
    let release: Release = serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Release",
        "metadata": {"namespace": "shop", "name": "crm-2", "uid": "r-2", "resourceVersion": "4"},
        "spec": {"app": "crm", "revision": 2},
    }))
    .unwrap();
    let expected = ReleaseStep {
        app: "crm".to_owned(),
        step: step.map(str::to_owned),
        reason: "BackingUp".to_owned(),
    };
    assert_eq!(
        committed(Own::Release(Arc::new(release)), rung, outcome).step,
        Some(expected)
    );
}

#[test]
fn other_kinds_have_no_step() {
    assert_eq!(committed(Own::App(Arc::new(app_object())), None, None).step, None);
}
