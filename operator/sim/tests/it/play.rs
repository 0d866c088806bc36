//! Playing stories, and what must hold at their ends.

use fairway_sim::script::Story;
use fairway_sim::transcript::end_state;
use fairway_sim::wire::Fault;
use fairway_sim::{Sim, Turns};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A story by its name.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// Name of its file.
    pub(crate) name: String,
    /// The text.
    pub(crate) text: String,
    /// Which one it is: faults that need not be tried everywhere take turns.
    pub(crate) number: usize,
}

/// The folder of the stories.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories")
}

/// Every story, in order; with `STORY=name` only that one.
pub(crate) fn stories() -> Vec<Named> {
    let only = std::env::var("STORY").ok();
    let entries = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut stories: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| Named {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            text: std::fs::read_to_string(&path).unwrap(),
            number: 0,
        })
        .filter(|story| only.as_ref().is_none_or(|only| *only == story.name))
        .collect();
    stories.sort_by(|a, b| a.name.cmp(&b.name));
    for (number, story) in stories.iter_mut().enumerate() {
        story.number = number;
    }
    stories
}

/// The story of that name.
pub(crate) fn story(name: &str) -> Named {
    let text = std::fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap();
    Named {
        name: name.to_owned(),
        text,
        number: 0,
    }
}

/// What came of a story.
pub(crate) struct Played {
    /// The story with what came of each command.
    pub(crate) text: String,
    /// The simulation at its end.
    pub(crate) sim: Sim,
    /// The simulation before each command, with the command's line.
    pub(crate) marks: Vec<(usize, Sim)>,
}

impl Played {
    /// Names and outcomes at the end, for comparison with another run.
    pub(crate) fn end(&self) -> String {
        let executions = &self.sim.cluster.database.executions;
        let executions: Vec<_> = executions
            .iter()
            .map(|execution| format!("executed for {}", execution.release))
            .collect();
        format!(
            "{}\n{}",
            end_state(self.sim.cluster.objects()),
            executions.join("\n")
        )
    }

    /// The last mark at which `is_before` still holds, for a run that differs from this one only later.
    pub(crate) fn mark(&self, is_before: impl Fn(&Sim) -> bool) -> (usize, Sim) {
        let mark = self.marks.iter().rev().find(|(_, sim)| is_before(sim));
        mark.cloned().unwrap_or_else(|| self.marks[0].clone())
    }

    /// Numbers of the writes that no other story has.
    pub(crate) fn own_writes(&self, claims: &Claims, story: &Named) -> std::ops::RangeInclusive<usize> {
        let writes = self.sim.traffic.writes.len();
        let Some((first, shared)) = story.first_act(self) else {
            return 1..=writes;
        };
        if claims.claim(first) {
            1..=writes
        } else {
            shared.traffic.writes.len() + 1..=writes
        }
    }
}

impl Named {
    /// The commands up to the first `settle`, and the simulation after it, if the story goes on then.
    fn first_act<'a>(&self, played: &'a Played) -> Option<(String, &'a Sim)> {
        let commands: Vec<&str> = self.text.lines().filter(|line| line.starts_with('>')).collect();
        let settle = commands.iter().position(|command| *command == "> settle")?;
        let (_, after) = played.marks.get(settle + 1)?;
        Some((commands[..=settle].join("\n"), after))
    }
}

/// Beginnings that stories share: the faults in them are tried in one story only.
#[derive(Default)]
pub(crate) struct Claims(Mutex<BTreeSet<String>>);

impl Claims {
    fn claim(&self, beginning: String) -> bool {
        self.0.lock().unwrap().insert(beginning)
    }
}

/// Plays a story to its end and checks what must hold whatever goes wrong: it ends, no invariant broke, and
/// planning again changes nothing.
fn play_on(story: &Named, mut sim: Sim, from: usize, keeps_marks: bool) -> Result<Played, String> {
    let what = format!("{} with {:?}, {:?}", story.name, sim.traffic.fault, sim.turns);
    let mut marks = Vec::new();
    let (text, result) = Story::parse(&story.text).play(&mut sim, from, |line, sim| {
        if keeps_marks {
            marks.push((line, sim.clone()));
        }
    });
    if let Err(error) = result {
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(50)..].join("\n");
        return Err(format!(
            "{what}: {error}\n{}\n{last}",
            end_state(sim.cluster.objects())
        ));
    }
    if !sim.checker.violations.is_empty() {
        return Err(format!("{what}: {}\n{text}", sim.checker.violations.join("\n")));
    }
    let pending = sim.pending_writes();
    if !pending.is_empty() {
        return Err(format!(
            "{what}: writes are pending at the end: {}\n{text}",
            pending.join("\n")
        ));
    }
    Ok(Played { text, sim, marks })
}

/// Plays a story from the beginning.
pub(crate) fn play(story: &Named, fault: Fault, turns: Turns) -> Result<Played, String> {
    play_on(story, Sim::new(fault, turns), 0, true)
}

/// The story without any fault.
pub(crate) fn reference(story: &Named) -> Result<Played, String> {
    play(story, Fault::None, Turns::Alone)
}

/// Plays a story from the beginning under a fault; it must end as it does without.
pub(crate) fn play_alike(
    story: &Named,
    reference: &Played,
    fault: Fault,
    turns: Turns,
) -> Result<(), String> {
    go_on_alike(story, reference, (0, Sim::new(fault, turns)))
}

/// Plays a story from a mark on; it must end as the reference does.
pub(crate) fn go_on_alike(
    story: &Named,
    reference: &Played,
    (from, sim): (usize, Sim),
) -> Result<(), String> {
    let what = format!("{} with {:?}, {:?}", story.name, sim.traffic.fault, sim.turns);
    let played = play_on(story, sim, from, false)?;
    if played.end() == reference.end() {
        return Ok(());
    }
    let difference = difference(&reference.end(), &played.end());
    Err(format!("{what} ends otherwise:\n{difference}\n{}", played.text))
}

/// Of how many faults one is tried; `FAULT_STRIDE=1` tries each. The stories begin at different ones, so that together they
/// meet all kinds of writes. Sweeps that alternate between two or three faults need a stride without those divisors.
const FAULT_STRIDE: usize = 7;

/// Whether the fault of that number is tried in a story.
pub(crate) fn is_tried(story: &Named, number: usize) -> bool {
    let stride = std::env::var("FAULT_STRIDE").map_or(FAULT_STRIDE, |stride| stride.parse().unwrap());
    (number + story.number).is_multiple_of(stride)
}

/// Plays a story again with a fault at its writes.
pub(crate) fn with_fault_at_each_write(
    story: &Named,
    claims: &Claims,
    fault: impl Fn(usize) -> Fault,
) -> Result<(), String> {
    let reference = reference(story)?;
    let writes = reference.own_writes(claims, story);
    for write in writes.filter(|write| is_tried(story, *write)) {
        let (line, mut sim) = reference.mark(|sim| sim.traffic.writes.len() < write);
        sim.traffic.fault = fault(write);
        go_on_alike(story, &reference, (line, sim))?;
    }
    Ok(())
}

/// Does something with every story, on as many threads as there are processors, and reports the first failures of
/// each.
pub(crate) fn for_each_story(check: impl Fn(&Named) -> Result<(), String> + Sync) {
    let stories = stories();
    assert!(!stories.is_empty(), "there are no stories");
    let next = Mutex::new(stories.iter());
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let story = next.lock().unwrap().next();
                    let Some(story) = story else { break };
                    if let Err(failure) = check(story) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} stories fail:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

/// Stories about one moment, which a fault moves (a cache of Apps that lags by one write, a lost request): they end otherwise
/// then, and are played as written only.
const OF_ONE_MOMENT: [&str; 2] = [
    "deployment-deleted-without-its-pods",
    "superseded-before-endpoints-follow",
];

/// As [`for_each_story`], with every story whose end no fault may change.
pub(crate) fn for_each_story_with_faults(check: impl Fn(&Named) -> Result<(), String> + Sync) {
    for_each_story(|story| match OF_ONE_MOMENT.contains(&&*story.name) {
        true => Ok(()),
        false => check(story),
    });
}

/// The lines that are only in one of the two.
pub(crate) fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let gone = old
        .iter()
        .filter(|line| !new.contains(line))
        .map(|line| format!("- {line}"));
    let come = new
        .iter()
        .filter(|line| !old.contains(line))
        .map(|line| format!("+ {line}"));
    gone.chain(come).collect::<Vec<_>>().join("\n")
}
