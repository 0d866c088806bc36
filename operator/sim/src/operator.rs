//! An operator process: the engine, and what its watches have shown. Everything in it is lost when it is killed.

use crate::cluster::Cluster;
use crate::store::Objects;
use crate::wire::{Killed, Wire, list, read};
use fairway_engine::kinds::Kind;
use fairway_engine::{
    Action, Answer, Decided, Engine, Now, Pass, Probe, ReleaseStep, Request, verdict_of_round,
};
use fairway_plan::observed::Settings;
use fairway_plan::probe_token::ProbeKey;
use fairway_plan::protocol::ProbeVerdict;

/// A simulated operator process.
#[derive(Clone, Debug)]
pub struct Operator {
    /// The operator without its I/O.
    pub engine: Engine,
    /// Objects that its watches have delivered.
    delivered: Objects,
}

/// Where a pass has got to.
#[derive(Debug)]
pub(crate) enum Driven {
    /// To its end, with the step that a release has come to.
    Done(Option<ReleaseStep>),
    /// It is stopped between planning and acting.
    Stopped(Box<Pass>, Box<Decided>),
    /// To the answer of a request.
    Asked(Box<Pass>, Answer),
}

/// Where a pass stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stops {
    /// At its end.
    Never,
    /// Between planning and acting.
    BeforeActing,
    /// After each request.
    AfterAsking,
}

/// The key of a process.
fn key(restart: u32) -> [u8; 32] {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&restart.to_be_bytes());
    key
}

/// What a process with this key is started with.
pub(crate) fn settings(key: [u8; 32]) -> Settings {
    Settings {
        agent_image: "fairway:1".to_owned(),
        agent_pull_secrets: Vec::new(),
        agent_pull_policy: "IfNotPresent".to_owned(),
        agent_pods: Default::default(),
        agent_of_app: Default::default(),
        probe_key: ProbeKey::new(key),
    }
}

impl Operator {
    /// Starts a process that has listed every kind and is the leader. `restart` counts the processes before it.
    pub fn new(restart: u32, cluster: &Cluster) -> Self {
        let mut engine = Engine::new(settings(key(restart)), u16::MAX);
        let (delivered, now) = (cluster.objects().clone(), cluster.clock());
        delivered.list(&mut engine, now);
        engine.set_leads(true, now);
        Self { engine, delivered }
    }

    /// Delivers the difference to `view` as watch events, but of kinds that the operator may not watch at present.
    pub(crate) fn watch(&mut self, view: &Objects, cluster: &Cluster) {
        let version = cluster.api.version();
        let refused = Kind::ALL
            .into_iter()
            .filter(|kind| cluster.rules.refuse("watch", kind.as_str()));
        let view = refused.fold(view.clone(), |view, kind| {
            view.with_kind_of(&self.delivered, kind)
        });
        view.show(&self.delivered, version, &mut self.engine, cluster.clock());
        self.delivered = view;
    }

    /// Runs every health request once. Returns whether a target is still short of its success or failure threshold.
    pub(crate) fn probe(&mut self, cluster: &Cluster) -> bool {
        let probes: Vec<Probe> = self.engine.probes().map(|(probe, _)| probe.clone()).collect();
        for probe in &probes {
            self.engine
                .probed(probe, verdict(cluster, probe), cluster.clock());
        }
        self.engine.probes().any(|(probe, health)| {
            let target = &probe.target;
            health.passes < target.success_threshold
                && health.failures < target.failure_threshold
                && health.unreachable < target.failure_threshold
        })
    }

    /// Reconciles every object once and returns the writes that would follow, of which none is made; empty at a fixed
    /// point.
    pub(crate) fn pending_writes(mut self, cluster: &Cluster) -> Vec<String> {
        let mut pending = Vec::new();
        let now = cluster.clock();
        self.engine.set_leads(true, now);
        while let Some(pass) = self.engine.start(now) {
            let object = pass.object().clone();
            let mut reader = Reader { cluster };
            let driven = drive(
                &mut self.engine,
                Box::new(pass),
                Answer::Nothing,
                Stops::Never,
                &mut reader,
            );
            if let Err(Unwritten(request)) = driven {
                pending.push(format!("{object} would still write {request:?}"));
            }
        }
        pending
    }
}

/// What answers the requests of a pass.
pub(crate) trait Responder {
    /// Why a request gets no answer and its pass ends.
    type Error;

    /// The time at which the next action is asked for.
    fn now(&self) -> Now;

    /// The answer to a request.
    ///
    /// # Errors
    /// When the pass ends with this request.
    fn ask(&mut self, request: &Request) -> Result<Answer, Self::Error>;
}

impl Responder for Wire<'_> {
    type Error = Killed;

    fn now(&self) -> Now {
        Wire::now(self)
    }

    fn ask(&mut self, request: &Request) -> Result<Answer, Killed> {
        Wire::ask(self, request)
    }
}

/// Answers reads only.
struct Reader<'a> {
    cluster: &'a Cluster,
}

/// A write that was not made.
struct Unwritten(Request);

impl Responder for Reader<'_> {
    type Error = Unwritten;

    fn now(&self) -> Now {
        self.cluster.clock()
    }

    fn ask(&mut self, request: &Request) -> Result<Answer, Unwritten> {
        match request {
            Request::Read(resource, key) => Ok(read(self.cluster, *resource, &key.name)),
            Request::List(kind, _, selector) => Ok(list(self.cluster, *kind, selector)),
            write => Err(Unwritten(write.clone())),
        }
    }
}

/// Drives a pass on from an answer.
///
/// # Errors
/// When a request gets no answer.
pub(crate) fn drive<R: Responder>(
    engine: &mut Engine,
    mut pass: Box<Pass>,
    mut answer: Answer,
    stops: Stops,
    wire: &mut R,
) -> Result<Driven, R::Error> {
    loop {
        let now = wire.now();
        answer = match engine.next(&mut pass, answer, now) {
            Action::Plan(planning) => {
                let decided = Box::new(planning.decide(now.wall));
                if stops == Stops::BeforeActing {
                    return Ok(Driven::Stopped(pass, decided));
                }
                Answer::Decided(decided)
            }
            // Every pod is asked once a second.
            Action::Probe(_) => Answer::Nothing,
            Action::Ask(request) => {
                let answer = wire.ask(&request)?;
                if stops == Stops::AfterAsking {
                    return Ok(Driven::Asked(pass, answer));
                }
                answer
            }
            Action::Done(ended) => return Ok(Driven::Done(ended.step)),
        };
    }
}

fn verdict(cluster: &Cluster, probe: &Probe) -> ProbeVerdict {
    let target = &probe.target;
    let round = target
        .requests
        .iter()
        .enumerate()
        .map(|(position, (_, request))| {
            let via = target.via.as_ref();
            let is_listed = via.is_some_and(|via| via.indexes.get(position).is_some_and(Option::is_some));
            if !is_listed && request.headers.iter().any(|header| header.value.is_none()) {
                return ProbeVerdict::Failed("GET /health cannot be sent: a header has no value".to_owned());
            }
            let has_no_pod = via.is_some_and(|via| via.address.is_none());
            if cluster.rules.probes_are_blocked || has_no_pod {
                return ProbeVerdict::Unreachable("no connection could be made".to_owned());
            }
            match cluster.health(&target.pod_uid) {
                Some(true) => ProbeVerdict::Passed,
                Some(false) => ProbeVerdict::Failed("GET /health answered 500 instead of 200".to_owned()),
                None if cluster.has_pod(&target.pod_uid) => {
                    ProbeVerdict::Refused("no connection could be made".to_owned())
                }
                None => ProbeVerdict::Unreachable("no connection could be made".to_owned()),
            }
        });
    verdict_of_round(round)
}
