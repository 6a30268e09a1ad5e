//! Runs a plan.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::thread;

use claviger::{BackendError, Error, LockPolicy, SecretKey, StaticKms};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use crate::dice::MachineRandom;
use crate::finish;
use crate::life::{self, Operation};
use crate::machine::{Machine, Yard};
use crate::operator;
use crate::oracle::at_rest;
use crate::plan::{Deed, Leave, Plan, Step};
use crate::settings::{Settings, ms};
use crate::world::{Shared, Violation};

/// What came of a run.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The rules that were broken; none if all is well.
    pub violations: Vec<Violation>,
    /// What happened, a line to an event.
    pub history: Vec<String>,
    /// How many records were sealed.
    pub sealed: usize,
    /// How many calls the back ends had.
    pub calls: u64,
}

impl Report {
    /// Returns a number that two runs with the same history have in common.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.history.hash(&mut hasher);
        hasher.finish()
    }
}

/// Runs a plan on a thread of its own, which has nothing of an earlier run.
#[must_use]
pub fn run(plan: &Plan) -> Report {
    let plan = plan.clone();
    let name = format!("seed {}", plan.seed);
    alone(name, || async move { in_virtual_time(&plan).await })
}

/// Runs something in virtual time on a thread of its own.
pub(crate) fn alone<F: Future<Output = Report>>(
    name: String,
    work: impl FnOnce() -> F + Send + 'static,
) -> Report {
    let in_runtime = move || {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.map(|runtime| runtime.block_on(async { work().await }))
    };
    let ended = thread::Builder::new().name(name).spawn(in_runtime).map(thread::JoinHandle::join);
    match ended {
        Ok(Ok(Ok(report))) => report,
        Ok(Ok(Err(error))) => broken(format!("no runtime: {error}")),
        Ok(Err(panic)) => broken(said(&*panic)),
        Err(error) => broken(format!("no thread: {error}")),
    }
}

fn broken(what: String) -> Report {
    Report { violations: vec![Violation { rule: "nothing_panics", what, line: 0 }], ..Report::default() }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

async fn in_virtual_time(plan: &Plan) -> Report {
    let world = Shared::new(plan);
    match masters(plan.seed) {
        Ok(masters) => {
            let yard = Yard::new(world.clone(), masters, plan.settings.clone(), plan.seed);
            let mut run = Run { yard, machines: Vec::new(), attended: TaskTracker::new() };
            if let Err(error) = run.all(&plan.steps).await {
                world.lock().violate("processes_can_be_started", error.to_string());
            }
        }
        Err(error) => world.lock().violate("processes_can_be_started", error.to_string()),
    }
    let mut world = world.lock();
    Report {
        violations: std::mem::take(&mut world.violations),
        history: std::mem::take(&mut world.history),
        sealed: world.sealed.len(),
        calls: world.calls.count,
    }
}

/// The two master keys that there are.
fn masters(seed: u64) -> Result<Arc<[StaticKms; 2]>, BackendError> {
    let master = |stream| {
        let random = MachineRandom::new(seed, stream);
        let key = SecretKey::generate(&random).map_err(BackendError::transient)?;
        Ok(StaticKms::with_lock_policy(&key, LockPolicy::Off)?.random(random))
    };
    Ok(Arc::new([master(1)?, master(2)?]))
}

pub(crate) struct Run {
    pub(crate) yard: Yard,
    pub(crate) machines: Vec<Option<Machine>>,
    /// Tasks of the run itself: closings.
    pub(crate) attended: TaskTracker,
}

impl Run {
    async fn all(&mut self, steps: &[Step]) -> Result<(), Error> {
        for who in 0..self.yard.settings.processes {
            let machine = self.yard.start(who)?;
            self.machines.push(Some(machine));
        }
        let began = Instant::now();
        for step in steps {
            sleep_until(began + step.time()).await;
            self.step(&step.deed).await?;
            for machine in self.machines.iter_mut().flatten() {
                machine.reap();
                at_rest::look(&self.yard.world, machine.who, &machine.factory);
            }
            if !self.yard.world.lock().violations.is_empty() {
                return Ok(());
            }
        }
        // A run that never ends would wait for ever: virtual time stands still where nothing is waited for.
        if timeout(ms(24 * 3_600_000), finish::finish(self)).await.is_err() {
            self.yard.world.lock().violate("everything_ends", "it did not within a day".to_owned());
        }
        Ok(())
    }

    async fn step(&mut self, deed: &Deed) -> Result<(), Error> {
        match deed {
            Deed::Encrypt { process, partition, times, leave } => {
                self.encrypt(*process, &Settings::partition(*partition), *times, *leave);
            }
            Deed::Decrypt { process, record, times, leave } => {
                self.decrypt(*process, *record, *times, *leave);
            }
            Deed::Crowd { process, partitions } => {
                for number in 0..*partitions {
                    self.encrypt(*process, &format!("crowd{number}"), 1, Leave::Never);
                }
            }
            Deed::WarmUp { .. }
            | Deed::Invalidate { .. }
            | Deed::DropSessions { .. }
            | Deed::Leave { .. }
            | Deed::RestoreLost { .. } => self.use_factory(deed),
            Deed::Crash { process } => self.crash(*process),
            Deed::Close { process, deadline } => self.close(*process, *deadline),
            Deed::Start { process } => {
                if let Some(place) = self.machines.get_mut(*process).filter(|place| place.is_none()) {
                    *place = Some(self.yard.start(*process)?);
                }
            }
            Deed::Jump { process, by } => self.jump(*process, *by),
            Deed::Weather { process, road, mood } => {
                let mut world = self.yard.world.lock();
                world.tell(&format!("{road:?} of {process:?}: {mood:?}"));
                world.set_mood(*process, *road, *mood);
            }
            Deed::Afflict { partition, mood } => {
                let id = operator::intermediate_key(*partition);
                let mut world = self.yard.world.lock();
                world.tell(&format!("{id}: {mood:?}"));
                world.afflict(id, *mood);
            }
            Deed::Revoke { row } => operator::revoke(&self.yard, &self.machines, *row),
            Deed::Lose { row } => operator::lose(&self.yard, *row),
            Deed::Shred { partition } => operator::shred(&self.yard, &self.machines, *partition),
            Deed::Rewrap { master } => operator::rewrap(&self.yard, &self.machines, *master).await,
        }
        Ok(())
    }

    fn encrypt(&mut self, process: usize, partition: &str, times: usize, leave: Leave) {
        let Some(machine) = self.machines.get_mut(process).and_then(Option::as_mut) else { return };
        for _ in 0..times {
            let Ok(session) = machine.session(partition) else { return };
            let operation = Operation::new(self.yard.world.clone(), process, partition.to_owned());
            machine.operations.spawn(operation.encrypt(session, leave));
        }
    }

    fn decrypt(&mut self, process: usize, record: usize, times: usize, leave: Leave) {
        let Some(machine) = self.machines.get_mut(process).and_then(Option::as_mut) else { return };
        let sealed = {
            let world = self.yard.world.lock();
            let place = record.checked_rem(world.sealed.len());
            place.and_then(|place| world.sealed.get(place)).cloned()
        };
        let Some(sealed) = sealed else { return };
        for _ in 0..times {
            let Ok(session) = machine.session(&sealed.partition) else { return };
            let operation = Operation::new(self.yard.world.clone(), process, sealed.partition.clone());
            machine.operations.spawn(operation.decrypt(session, sealed.clone(), leave));
        }
    }

    /// What is asked of a factory besides encrypts and decrypts.
    fn use_factory(&mut self, deed: &Deed) {
        let (Deed::WarmUp { process, .. }
        | Deed::Invalidate { process, .. }
        | Deed::DropSessions { process }
        | Deed::Leave { process }
        | Deed::RestoreLost { process }) = deed
        else {
            return;
        };
        let Some(machine) = self.machines.get_mut(*process).and_then(Option::as_mut) else { return };
        let world = self.yard.world.clone();
        match deed {
            Deed::WarmUp { leave, .. } => {
                let partitions = (0..self.yard.settings.partitions).map(Settings::partition).collect();
                let factory = machine.factory.clone();
                machine.operations.spawn(life::warm_up(world, *process, factory, partitions, *leave));
            }
            Deed::Invalidate { row, .. } => life::invalidate(&world, machine, *row),
            Deed::DropSessions { .. } => machine.drop_sessions(),
            Deed::Leave { .. } => {
                world.tell(format!("all callers of {process} leave"));
                machine.operations.abort_all();
            }
            _ => {
                machine.operations.spawn(life::restore_lost(world, *process, machine.factory.clone()));
            }
        }
    }

    /// All of a process is gone at once.
    fn crash(&mut self, process: usize) {
        if let Some(machine) = self.machines.get_mut(process).and_then(Option::take) {
            self.yard.world.tell(format!("{process} crashes"));
            drop(machine);
        }
    }

    /// Closes a process, whose operations go on until they are refused.
    fn close(&mut self, process: usize, deadline: u64) {
        let Some(machine) = self.machines.get_mut(process).and_then(Option::take) else { return };
        {
            let mut world = self.yard.world.lock();
            world.tell(&format!("{process} closes within {deadline} ms"));
            if let Some(seen) = world.machines.get_mut(process) {
                seen.is_closed = true;
            }
        }
        self.attended.spawn(finish::close(self.yard.world.clone(), machine, ms(deadline)));
    }

    fn jump(&self, process: usize, by: i64) {
        let mut world = self.yard.world.lock();
        world.tell(&format!("the clock of {process} jumps by {by} ms"));
        if let Some(seen) = world.machines.get_mut(process) {
            seen.clock.jump(by);
            seen.jumped = Some(Instant::now());
        }
    }
}
