//! Experiments in simulated time: the same scenarios, the same requests and the same results as on real nodes.

mod job;
mod keeper;
mod program;
mod world;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rayon::prelude::*;
use serde_json::{Map, Value};

use self::job::JobMaker;
use self::keeper::{Hand, Keeper, hand};
use self::program::{ProgramSocket, Trouble};
use self::world::Maker;
use crate::experiment::design::about::{About, LoadKept, NodeAbout, RunEnd};
use crate::experiment::design::scenario::Point;
use crate::experiment::report::summary::{Collector, Summary};
use crate::experiment::run::{ExperimentError, Inputs, SimulatedResults};
use crate::queue::Limits;
use crate::saved::LimitsPatch;
use crate::simulation::{NodeSetup, Request, SimProgress, Simulation, World};

/// Events between two looks at whether the program shall end.
const LOOK_EVENTS: u64 = 1 << 16;

/// Nodes of which it is kept what their algorithms have learnt.
const MEMORIES_MAX: usize = 100;

/// Who is told how it goes; from several threads.
pub trait Watcher: Sync {
    /// So many further seconds were simulated, of all that there are in all runs.
    fn simulated(&self, seconds: f64);
    /// A run has ended, with its results there.
    fn ended(&self, results: &Path);
}

/// Which of a scenario's runs are made here: every `of`-th, beginning with the `part`-th, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, 1 to `of`.
    pub part: usize,
    /// Of how many parts.
    pub of: usize,
}

/// What is kept of each call in the files of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KeptRows {
    /// What a real run keeps: times at each node, and all nodes passed.
    All,
    /// What the report needs: the call, and the node that ran it.
    #[default]
    Jobs,
    /// Nothing: there are no files, only the report.
    None,
}

/// A simulated experiment about to be made.
pub struct Simulator<'a> {
    /// The scenario and its files.
    pub inputs: &'a Inputs,
    /// The folder of the results, which must be there.
    pub folder: &'a Path,
    /// Which runs.
    pub shard: Shard,
    /// What is kept.
    pub rows: KeptRows,
    /// Becomes true when it shall end.
    pub stop: &'a AtomicBool,
}

impl Simulator<'_> {
    /// The runs that are made here, with their numbers from 1 among all.
    fn points(&self) -> (Vec<(usize, Point)>, usize) {
        let points = self.inputs.scenario.points();
        let digits = points.len().to_string().len().max(2);
        let Shard { part, of } = self.shard;
        let mine = (1..).zip(points).filter(|(number, _)| (number - 1) % of.max(1) + 1 == part);
        (mine.collect(), digits)
    }

    /// Seconds that are simulated in all.
    pub fn seconds(&self) -> f64 {
        let seconds =
            |(_, point): &(usize, Point)| self.warm_up_s(point) + self.inputs.scenario.duration_s;
        self.points().0.iter().map(seconds).sum()
    }

    fn warm_up_s(&self, point: &Point) -> f64 {
        if point.improves() { self.inputs.scenario.learner_warm_up_s } else { 0.0 }
    }

    /// Makes all runs, on all cores, each simulated on one; `watcher` is told how it goes. Gives the runs' figures, in their order.
    ///
    /// # Errors
    /// The scenario cannot be simulated, or results not be written; or it was told to stop.
    pub fn run(&self, watcher: &dyn Watcher) -> Result<Vec<Summary>, ExperimentError> {
        let (points, digits) = self.points();
        let worlds = Maker::new(self.inputs)?;
        let run = |(number, point): &(usize, Point)| {
            let path = self.folder.join(format!("run-{number:0digits$}.db"));
            self.one(&worlds, point, &path, watcher)
        };
        // Each run's result depends on nothing but the run.
        points.par_iter().map(run).collect()
    }

    fn one(
        &self,
        worlds: &Maker<'_>,
        point: &Point,
        path: &Path,
        watcher: &dyn Watcher,
    ) -> Result<Summary, ExperimentError> {
        let world = worlds.world(point)?;
        let mut about = self.about(point, &world);
        let warm_up = self.warm_up_s(point);
        let requests = worlds.requests(point, warm_up);
        let begins = Duration::from_secs_f64(worlds.begins_s(warm_up));
        let trouble = Trouble::default();
        let programs = ProgramSocket::open(&world.scheduler, trouble.clone())?;
        let jobs = JobMaker::new(&world, self.inputs, point, begins, self.rows);
        let mut simulation = Simulation::new(world, requests)
            .map_err(|why| ExperimentError::Inputs(vec![why.to_string()]))?
            .asking(Box::new(programs));
        // A world that cannot be leaves nothing behind.
        let results = match self.rows {
            KeptRows::None => None,
            _ => Some(SimulatedResults::create(path, &about)?),
        };
        let collector = Collector::new(about.clone());
        let keeper = Keeper { jobs, collector, results, planned: 0 };
        let (hand, ended) = hand();
        let (went, kept) = std::thread::scope(|scope| {
            let keeps =
                std::thread::Builder::new().spawn_scoped(scope, move || keeper.keep(&ended));
            let keeps = keeps.map_err(|why| ExperimentError::Machine(no_thread(&why)))?;
            let went = self.go(&mut simulation, hand, watcher, &trouble);
            let kept = keeps.join().unwrap_or_else(|why| std::panic::resume_unwind(why));
            Ok::<_, ExperimentError>((went, kept))
        })?;
        let told = match went {
            Ok(told) => told,
            Err(why) => {
                // What is there of it is no run.
                if let Some(results) = kept.results {
                    results.discard();
                }
                return Err(why);
            }
        };
        about.end = RunEnd::Complete;
        for (node, index) in about.nodes.iter_mut().zip(0u32..).take(MEMORIES_MAX) {
            node.memory = simulation.memory(index);
        }
        about.kept.planned = kept.planned;
        about.kept.sent_in_time = kept.planned;
        if let Some(results) = kept.results {
            results.finish(&about)?;
            watcher.ended(path);
        }
        let whole = worlds.begins_s(warm_up) + self.inputs.scenario.duration_s;
        watcher.simulated((whole - told.as_secs_f64()).max(0.0));
        Ok(Summary { about, ..kept.collector.finish() })
    }

    /// Simulates to the end; every call that ends is handed over. Gives the time up to which `watcher` was told.
    fn go<R: Iterator<Item = Request>>(
        &self,
        simulation: &mut Simulation<R>,
        mut hand: Hand,
        watcher: &dyn Watcher,
        trouble: &Trouble,
    ) -> Result<Duration, ExperimentError> {
        let (mut told, mut looked) = (Duration::ZERO, 0);
        loop {
            // What a program that is gone would have decided, nobody knows.
            trouble.check()?;
            match simulation.advance() {
                SimProgress::Finished(finished) => {
                    if !hand.over(finished) {
                        return Ok(told);
                    }
                }
                SimProgress::Asks => simulation.decide_here(),
                SimProgress::Ended => return Ok(told),
            }
            if simulation.events() > looked + LOOK_EVENTS {
                looked = simulation.events();
                watcher.simulated(simulation.now().saturating_sub(told).as_secs_f64());
                told = simulation.now();
                if self.stop.load(Ordering::Relaxed) {
                    return Err(ExperimentError::Interrupted);
                }
            }
        }
    }

    fn about(&self, point: &Point, world: &World) -> About {
        let inputs = self.inputs;
        let node = |setup: &NodeSetup| NodeAbout {
            address: setup.host.to_string(),
            name: setup.name.to_string(),
            version: crate::VERSION.to_owned(),
            configuration: configuration(setup.limits),
            scheduler: world.scheduler.clone(),
            learner: None,
            memory: None,
        };
        About {
            bench_version: format!("{} ({})", crate::VERSION, crate::COMMIT),
            simulated: true,
            scenario: inputs.scenario.clone(),
            point: Point { scheduler: Some(world.scheduler.clone()), ..point.clone() },
            deadlines_s: inputs.scenario.deadlines(point),
            payload_names: inputs.payloads.iter().map(|payload| payload.title.clone()).collect(),
            nodes: world.nodes.iter().map(node).collect(),
            started: 0.0,
            end: RunEnd::Unknown,
            kept: LoadKept::default(),
        }
    }
}

fn no_thread(why: &std::io::Error) -> String {
    format!("the system gives no more threads: {why}")
}

/// K and the queue, as a node's configuration tells them.
fn configuration(limits: Limits) -> Map<String, Value> {
    let told = serde_json::to_value(LimitsPatch::from(limits)).unwrap_or_default();
    if let Value::Object(told) = told { told } else { Map::new() }
}
