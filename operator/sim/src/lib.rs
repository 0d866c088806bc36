//! An in-memory cluster in which tests play whole releases: an API server, the controllers of Kubernetes, a database with
//! its ledger, agents, and operator processes with everything that can happen to them.
//!
//! The operators are [`fairway_engine`], the code that ships: only what carries requests and events is simulated.
//!
//! It is deterministic: the same script and the same fault give the same story. The clock is virtual; a day of
//! bake takes no time. After every write the invariants are checked ([`invariants`]).

mod agents;
pub mod cluster;
pub mod database;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod images;
pub mod invariants;
pub mod operator;
pub mod pod_run;
mod pods;
pub mod script;
pub mod store;
pub mod traffic;
pub mod transcript;
mod verbs;
pub mod wire;

use cluster::{Cluster, Rules};
use fairway_engine::{Answer, Decided, ObjectKey, Pass, ReleaseStep};
use invariants::at_rest::is_under_way;
use invariants::{Checker, Observations};
use jiff::{SignedDuration, Timestamp};
use operator::{Driven, Operator, Stops, drive};
use std::collections::VecDeque;
use transcript::Transcript;
use wire::{Fault, Killed, Traffic, Wire};

/// A story that takes more steps than this does not end.
const LIMIT: usize = 20_000;
/// What one pass takes.
const PASS: SignedDuration = SignedDuration::from_millis(5);

/// Why a story could not be played to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// Things move on and on.
    Endless,
    /// Nothing moves any more, and what was waited for has not come.
    Still,
}

/// How operators take turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Turns {
    /// There is one.
    #[default]
    Alone,
    /// There is one, and its passes are under way at the same time, request by request.
    Interleaved,
    /// There are two, and both work, pass by pass.
    Alternate,
    /// There are two. The first is stopped between planning and acting in its pass of that number, the second
    /// takes over until nothing moves, and only then the first goes on where it was.
    Stopped(usize),
}

/// A story under way.
#[derive(Clone, Debug)]
pub struct Sim {
    /// The cluster.
    pub cluster: Cluster,
    /// What operators send.
    pub traffic: Traffic,
    /// The story.
    pub transcript: Transcript,
    /// Who watches the invariants.
    pub checker: Checker,
    /// Operator processes that live; none while the operator is away.
    pub operators: Vec<Operator>,
    /// How operators take turns.
    pub turns: Turns,
    /// Steps of releases as the operator logs them, with the object of the pass, unless passes are interleaved.
    pub logged: Vec<(ObjectKey, ReleaseStep)>,
    /// Numbers of the passes in which the first operator wrote anything.
    pub decisive: Vec<usize>,
    /// The pass in which the first operator is stopped, and what it has decided.
    stopped: Option<(Box<Pass>, Box<Decided>)>,
    /// Passes that are under way at the same time, and the next answer of each.
    under_way: VecDeque<(Box<Pass>, Answer)>,
    turn: usize,
    passes: usize,
    started: u32,
    /// Up to which version the watches have been served.
    seen: u64,
    steps: usize,
    /// No leap goes further.
    horizon: Option<Timestamp>,
    /// Whether nothing moves when the next thing to happen is a run of a schedule: that of backups never ends.
    rests_at_schedule: bool,
}

impl Sim {
    /// An empty cluster with an operator, and what will go wrong.
    pub fn new(fault: Fault, turns: Turns) -> Self {
        // Not on a whole second: what is written must not depend on more than what is kept of it.
        let begin = Timestamp::new(1_767_268_800, 123_456_789).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut cluster = Cluster::new(begin);
        let mut checker = Checker::default();
        if matches!(fault, Fault::Lagging { .. }) {
            cluster.api.remember();
            checker.observations = Observations::Stale;
        }
        let mut sim = Self {
            cluster,
            traffic: Traffic::with(fault),
            transcript: Transcript::new(begin),
            checker,
            operators: Vec::new(),
            turns,
            logged: Vec::new(),
            decisive: Vec::new(),
            stopped: None,
            under_way: VecDeque::new(),
            turn: 0,
            passes: 0,
            started: 0,
            seen: 0,
            steps: 0,
            horizon: None,
            rests_at_schedule: false,
        };
        sim.start_operators();
        sim
    }

    fn start_operators(&mut self) {
        let desired = match self.turns {
            Turns::Alone | Turns::Interleaved => 1,
            Turns::Alternate | Turns::Stopped(_) => 2,
        };
        while self.operators.len() < desired {
            self.started += 1;
            self.operators.push(Operator::new(self.started, &self.cluster));
        }
    }

    /// The operator goes away, or comes back as a new process.
    pub fn set_away(&mut self, is_away: bool) {
        if is_away {
            self.operators.clear();
            self.under_way.clear();
        } else {
            self.start_operators();
        }
    }

    /// Goes on until `is_met`.
    ///
    /// # Errors
    /// When that never comes.
    pub fn until(&mut self, is_met: impl Fn(&Cluster) -> bool) -> Result<(), Stuck> {
        while !is_met(&self.cluster) {
            if !self.step()? {
                return Err(Stuck::Still);
            }
        }
        Ok(())
    }

    /// Goes on until nothing moves any more, before the next run of a schedule.
    ///
    /// # Errors
    /// When that never comes.
    pub fn settle(&mut self) -> Result<(), Stuck> {
        self.rests_at_schedule = true;
        while self.step()? {}
        if self.stopped.is_some() {
            self.resume();
            while self.step()? {}
        }
        self.rests_at_schedule = false;
        self.rest();
        Ok(())
    }

    /// When the next run of a schedule begins, as the Apps say, or a store is asked again on another day.
    fn next_run(&self) -> Option<Timestamp> {
        let apps = self.cluster.objects().apps.values();
        let states = apps.filter_map(|app| app.status.as_ref()?.backup.as_ref());
        let runs = states.filter_map(|state| state.next_runs.first().copied());
        let backups = self.cluster.objects().backups.values();
        let removals = backups.filter_map(|backup| backup.status.as_ref()?.removal.as_ref());
        let later = self.cluster.now + SignedDuration::from_hours(1);
        let again = removals.filter_map(|removal| removal.attempts.as_ref()?.next);
        runs.chain(again.filter(|next| *next > later)).min()
    }

    /// Checks what must hold when nothing moves any more; nothing need while nobody acts.
    fn rest(&mut self) {
        if self.operators.is_empty() {
            return;
        }
        let pending = self.pending_writes();
        self.checker.at_rest(&self.cluster, &pending);
        if self.traffic.fault == Fault::None && self.turns == Turns::Alone {
            for unheard in self.unheard() {
                self.checker.violated(unheard);
            }
        }
    }

    /// Does all that is due at this moment.
    fn pass_all(&mut self) {
        self.watch();
        let mut passes = 0;
        while passes < 100 && self.pass() {
            passes += 1;
            self.watch();
        }
    }

    /// Lets that much time pass.
    ///
    /// # Errors
    /// When more happens in it than can be.
    pub fn pass_time(&mut self, span: SignedDuration) -> Result<(), Stuck> {
        let end = self.cluster.now + span;
        self.horizon = Some(end);
        while self.cluster.now < end {
            if !self.step()? {
                self.cluster.now = end;
            }
        }
        self.horizon = None;
        Ok(())
    }

    /// One pass of an operator or, when none has anything to do, one second of everything else. Returns whether
    /// anything is still to come.
    ///
    /// # Errors
    /// When there were too many.
    pub fn step(&mut self) -> Result<bool, Stuck> {
        self.steps += 1;
        if self.steps > LIMIT {
            return Err(Stuck::Endless);
        }
        self.watch();
        if self.pass() {
            return Ok(true);
        }
        if !self.traffic.has_caught_up && matches!(self.traffic.fault, Fault::Lagging { .. }) {
            self.traffic.has_caught_up = true;
            self.show();
            return Ok(true);
        }
        Ok(self.second())
    }

    /// Shows the operators what has changed since they last saw it.
    fn watch(&mut self) {
        if self.cluster.api.version() != self.seen {
            self.show();
        }
    }

    fn show(&mut self) {
        self.seen = self.cluster.api.version();
        let view = self.traffic.view(&self.cluster);
        for operator in &mut self.operators {
            operator.watch(&view, &self.cluster);
        }
    }

    /// One pass of the operator whose turn it is. Returns whether there was one.
    fn pass(&mut self) -> bool {
        if self.turns == Turns::Interleaved {
            return self.interleave();
        }
        let count = self.operators.len();
        let is_stopped = self.stopped.is_some();
        for offset in 0..count {
            let index = (self.turn + offset) % count;
            if is_stopped && index == 0 {
                continue;
            }
            let Some(pass) = self.operators[index].engine.start(self.cluster.clock()) else {
                continue;
            };
            self.turn = index + 1;
            self.passes += 1;
            self.cluster.now += PASS;
            self.run(index, Box::new(pass));
            return true;
        }
        false
    }

    /// Starts what is ready, and takes one of the passes under way to its next request. Returns whether there was one.
    fn interleave(&mut self) -> bool {
        let now = self.cluster.clock();
        let Some(operator) = self.operators.first_mut() else {
            return false;
        };
        while let Some(pass) = operator.engine.start(now) {
            self.passes += 1;
            self.under_way.push_back((Box::new(pass), Answer::Nothing));
        }
        let Some((pass, answer)) = self.under_way.pop_front() else {
            return false;
        };
        self.cluster.now += PASS;
        if let Ok(Driven::Asked(pass, answer)) = self.drive(0, pass, answer, Stops::AfterAsking) {
            self.under_way.push_back((pass, answer));
        }
        true
    }

    fn run(&mut self, index: usize, pass: Box<Pass>) {
        let stops = if self.turns == Turns::Stopped(self.passes) && index == 0 {
            Stops::BeforeActing
        } else {
            Stops::Never
        };
        let writes = self.traffic.writes.len();
        let object = pass.object().clone();
        let driven = self.drive(index, pass, Answer::Nothing, stops);
        if index == 0 && self.traffic.writes.len() != writes {
            self.decisive.push(self.passes);
        }
        match driven {
            Ok(Driven::Done(step)) => self.logged.extend(step.map(|step| (object, step))),
            Ok(Driven::Asked(..)) => {}
            Ok(Driven::Stopped(pass, decided)) => self.stopped = Some((pass, decided)),
            Err(Killed) => {
                self.started += 1;
                self.transcript
                    .add(self.cluster.now, "the operator is killed and restarts");
                self.operators[index] = Operator::new(self.started, &self.cluster);
            }
        }
    }

    fn drive(
        &mut self,
        index: usize,
        pass: Box<Pass>,
        answer: Answer,
        stops: Stops,
    ) -> Result<Driven, Killed> {
        for (probe, health) in self.operators[index].engine.probes() {
            self.checker.passed(&probe.target.pod_uid, health.passes);
        }
        let mut wire = Wire {
            cluster: &mut self.cluster,
            traffic: &mut self.traffic,
            transcript: &mut self.transcript,
            checker: &mut self.checker,
        };
        let engine = &mut self.operators[index].engine;
        drive(engine, pass, answer, stops, &mut wire)
    }

    /// Lets the stopped operator do what it had decided long ago.
    fn resume(&mut self) {
        let Some((pass, decided)) = self.stopped.take() else {
            return;
        };
        let observations = std::mem::replace(&mut self.checker.observations, Observations::Stale);
        // Nothing kills it here, and how the pass ends does not matter.
        let _ = self.drive(0, pass, Answer::Decided(decided), Stops::Never);
        self.checker.observations = observations;
    }

    /// One second, or a leap to the next moment at which anything happens.
    fn second(&mut self) -> bool {
        self.cluster.now += SignedDuration::from_secs(1);
        let before = self.cluster.objects().clone();
        let mut is_busy = self.cluster.tick();
        if self.cluster.api.version() != self.seen {
            self.traffic.has_caught_up = false;
            self.checker.after_write(&before, &self.cluster);
        }
        let stopped = usize::from(self.stopped.is_some());
        let mut next = None;
        for operator in self.operators.iter_mut().skip(stopped) {
            is_busy |= operator.probe(&self.cluster);
            is_busy |= operator.engine.is_ready();
            next = next.into_iter().chain(operator.engine.next_timer()).min();
        }
        let next = next.map(|next| self.cluster.moment(next));
        let rests = self.rests_at_schedule && !is_under_way(self.cluster.objects());
        let run = self.next_run().filter(|_| rests);
        match next {
            _ if is_busy => true,
            Some(next) if run.is_some_and(|run| run <= next) => false,
            Some(next) => {
                let next = self.horizon.map_or(next, |horizon| next.min(horizon));
                self.cluster.now = next.max(self.cluster.now);
                true
            }
            None => false,
        }
    }

    /// A role or an admission rule refuses such requests of the operators from now on.
    fn refuse(&mut self, verb: &str, kind: &str) {
        let rules = &mut self.cluster.rules;
        rules.refused_requests.insert((verb.to_owned(), kind.to_owned()));
        if verb == "watch" {
            self.checker.observations = Observations::Stale;
        }
    }

    /// Nothing refuses such requests any more. What could not be watched meanwhile is seen.
    fn accept(&mut self, verb: &str, kind: &str) {
        let rules = &mut self.cluster.rules;
        rules.refused_requests.remove(&(verb.to_owned(), kind.to_owned()));
        self.show();
    }

    /// No rule refuses anything any more.
    fn accept_everything(&mut self) {
        self.cluster.rules = Rules::default();
        self.show();
    }

    /// Number of steps so far: passes of an operator, and seconds or leaps of everything else.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Number of passes so far.
    pub fn passes(&self) -> usize {
        self.passes
    }

    /// Reconciles every object once and returns the writes that would follow; empty at a fixed point.
    pub fn pending_writes(&mut self) -> Vec<String> {
        self.watch();
        let operator = self.operators.first().cloned();
        operator.map_or_else(Vec::new, |operator| operator.pending_writes(&self.cluster))
    }
}
