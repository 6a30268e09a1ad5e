//! One process: a factory, the sessions it keeps, the operations under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use claviger::{Error, Invalidation, Session, SessionFactory, StaticKms};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::dice::MachineRandom;
use crate::link::{Link, Push};
use crate::settings::Settings;
use crate::world::Shared;
use crate::{PRODUCT, SERVICE};

pub(crate) struct Machine {
    pub(crate) who: usize,
    pub(crate) factory: SessionFactory,
    pub(crate) operations: JoinSet<()>,
    sessions: BTreeMap<String, Session>,
    keeps_sessions: bool,
    /// Where messages for it go.
    pub(crate) push: mpsc::UnboundedSender<Invalidation>,
}

/// What machines are started from.
#[derive(Clone)]
pub(crate) struct Yard {
    pub(crate) world: Shared,
    pub(crate) masters: Arc<[StaticKms; 2]>,
    pub(crate) settings: Settings,
    pub(crate) seed: u64,
    /// How many machines were started.
    started: u64,
}

impl Yard {
    pub(crate) const fn new(
        world: Shared,
        masters: Arc<[StaticKms; 2]>,
        settings: Settings,
        seed: u64,
    ) -> Self {
        Self { world, masters, settings, seed, started: 0 }
    }

    pub(crate) fn link(&self, who: usize) -> Link {
        Link::new(self.world.clone(), who, Arc::clone(&self.masters))
    }

    /// Starts a process, or a bystander with a number from the fleet's size on, whose calls are always well.
    pub(crate) fn start(&mut self, who: usize) -> Result<Machine, Error> {
        self.started += 1;
        let settings = &self.settings;
        let (push, messages) = mpsc::unbounded_channel();
        let clock = {
            let mut world = self.world.lock();
            world.calls.forget(who);
            let seen = world.machines.get_mut(who.min(settings.processes - 1));
            let clock = seen.map(|seen| {
                if who < settings.processes {
                    seen.restart();
                }
                seen.clock.clone()
            });
            world.tell(&format!("{who} starts"));
            clock
        };
        let link = self.link(who);
        let mut builder = SessionFactory::builder(link.clone(), link)
            .service(SERVICE)
            .product(PRODUCT)
            .policy(settings.policy())
            .limits(settings.limits())
            .restore_lost(settings.restores_lost)
            .runtime(Handle::current())
            .random(MachineRandom::new(self.seed, 100 + self.started));
        if let Some(clock) = clock {
            builder = builder.clock(clock);
        }
        if settings.has_push {
            builder = builder.invalidations(Push::new(self.world.clone(), who, messages));
        }
        Ok(Machine {
            who,
            factory: builder.build()?,
            operations: JoinSet::new(),
            sessions: BTreeMap::new(),
            keeps_sessions: settings.keeps_sessions,
            push,
        })
    }
}

impl Machine {
    pub(crate) fn session(&mut self, partition: &str) -> Result<Session, Error> {
        if let Some(session) = self.sessions.get(partition) {
            return Ok(session.clone());
        }
        let session = self.factory.session(partition)?;
        if self.keeps_sessions {
            self.sessions.insert(partition.to_owned(), session.clone());
        }
        Ok(session)
    }

    pub(crate) fn drop_sessions(&mut self) {
        self.sessions.clear();
    }

    /// Forgets the operations that have ended.
    pub(crate) fn reap(&mut self) {
        while self.operations.try_join_next().is_some() {}
    }
}
