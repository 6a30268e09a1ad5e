//! What the builders of stores share.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use claviger::BackendError;

use crate::schema::{Admission, SchemaReport};
use crate::sql::FoldedIds;
use crate::sql::connections::{Connections, Known};
use crate::sql::dialect::Role;
use crate::sql::dialect::Sharing;
use crate::sql::dialect::{Dialect, Setup};
use crate::sql::hosts::Hosts;
use crate::sql::look::{OPENING_MAX, Start, look};
use crate::sql::sessions::Sessions;

/// How a store is set up.
pub(crate) struct Settings<D: Dialect> {
    pub(crate) admission: Admission,
    pub(crate) start: Start,
    pub(crate) folded_ids: FoldedIds,
    pub(crate) replica: Option<Replica<D>>,
    pub(crate) connections_max: NonZeroU32,
    pub(crate) server_timeouts: bool,
    pub(crate) on_connect: Option<Arc<str>>,
}

pub(crate) enum Replica<D: Dialect> {
    Options(D::Options),
    Url(String),
}

/// Where a store leads to, and how.
pub(crate) struct Target<D: Dialect> {
    pub(crate) hosts: Vec<D::Options>,
    pub(crate) role: Option<Role>,
    pub(crate) named_statements: bool,
}

impl<D: Dialect> Target<D> {
    /// One server, whatever it is.
    pub(crate) fn one(options: D::Options) -> Self {
        Self { hosts: vec![options], role: None, named_statements: true }
    }
}

const CONNECTIONS_MAX: NonZeroU32 = match NonZeroU32::new(10) {
    Some(ten) => ten,
    None => NonZeroU32::MIN,
};

impl<D: Dialect> Default for Settings<D> {
    fn default() -> Self {
        Self {
            admission: Admission::default(),
            start: Start::CHECKED,
            folded_ids: FoldedIds::default(),
            replica: None,
            connections_max: CONNECTIONS_MAX,
            server_timeouts: true,
            on_connect: None,
        }
    }
}

impl<D: Dialect> Settings<D> {
    /// Connects, and looks at the table. `read_url` makes a target of a replica's URL.
    pub(crate) async fn open(
        &self,
        target: Target<D>,
        read_url: impl Fn(&str) -> Result<Target<D>, BackendError>,
    ) -> Result<Connections<D>, BackendError> {
        let replica = match &self.replica {
            None => None,
            Some(Replica::Options(options)) => Some(Target::one(options.clone())),
            Some(Replica::Url(url)) => Some(read_url(url)?),
        };
        // Where several are named, one that takes no writes is not the one that is meant.
        let needs_writes = target.hosts.len() > 1 && !self.admission.read_only;
        let alone = if needs_writes { Role::ReadWrite } else { Role::Any };
        let role = target.role.unwrap_or(alone);
        let mut setup = self.setup(role, target.named_statements);
        let hosts = Arc::new(Hosts::new(target.hosts));
        let seen = look::<D>(&hosts, setup.clone(), self.start, OPENING_MAX).await?;
        self.admit(seen.report)?;
        setup.shares_connections |= seen.sharing != Sharing::Nothing;
        let table = Known::<D>::default();
        if let Some(seen) = seen.table {
            table.get_or_init(|| seen);
        }
        let shares_connections = setup.shares_connections;
        let primary = Sessions::new(hosts, setup, self.connections_max)?;
        primary.came_to(seen.server.as_deref());
        let replica = replica.map(|target| {
            let of_replica = self.setup(target.role.unwrap_or_default(), target.named_statements);
            // Whether a pooler is between is known of the primary alone.
            let shares_connections = shares_connections || of_replica.shares_connections;
            let of_replica = Setup { shares_connections, ..of_replica };
            Sessions::new(Arc::new(Hosts::new(target.hosts)), of_replica, self.connections_max)
        });
        Ok(Connections { primary, replica: replica.transpose()?, folded_ids: self.folded_ids, table })
    }

    fn setup(&self, role: Role, named_statements: bool) -> Setup {
        Setup {
            role,
            server_timeouts: self.server_timeouts,
            named_statements,
            // That is what statements are left without names for.
            shares_connections: !named_statements,
            on_connect: self.on_connect.clone(),
        }
    }

    fn admit(&self, report: SchemaReport) -> Result<(), BackendError> {
        report.admit(&self.admission).map_err(BackendError::permanent)
    }

    /// Adds what there is to say of the settings; no URL.
    pub(crate) fn debug(&self, fields: &mut fmt::DebugStruct<'_, '_>) {
        fields
            .field("accepted", &self.admission.accepted)
            .field("read_only", &self.admission.read_only)
            .field("start", &self.start)
            .field("folded_ids", &self.folded_ids)
            .field("replica", &self.replica.is_some())
            .field("connections_max", &self.connections_max)
            .field("server_timeouts", &self.server_timeouts);
    }
}

/// Gives the builder of a store on a server the settings that all have.
macro_rules! server_settings {
    ($builder:ident, $store:ident) => {
        impl $builder {
            /// Starts in spite of this dangerous finding.
            pub fn accept(mut self, finding: crate::FindingId) -> Self {
                self.settings.admission.accepted.push(finding);
                self
            }

            /// Opens the store for loading alone, as decrypting does: that the user may not insert, or that
            /// the server takes no writes, keeps it from nothing then. Off unless set. Inserts are tried all
            /// the same, and answered by the server.
            pub const fn read_only(mut self, on: bool) -> Self {
                self.settings.admission.read_only = on;
                self
            }

            /// Makes our own table, if there is none, before the store is opened; one that is there is left
            /// as it is. The user needs the right to make tables only where there is none, else it is
            /// [`SqlFault::TableNotMade`](crate::SqlFault::TableNotMade).
            ///
            /// It is for installing; a service does without. Any number of programs may do it at once.
            pub fn migrate(mut self) -> Self {
                self.settings.start.makes_table = true;
                self
            }

            /// Starts without a look at what is wrong with the table: to find it out with
            #[doc = concat!("[`", stringify!($store), "::check_schema`], or to mend it.")]
            pub fn danger_unchecked(mut self) -> Self {
                self.settings.start.checks = false;
                self
            }

            /// Reads keys that the table keeps under another id, which its collation takes for the one
            /// asked for: where an Asherah shares the table it seals for `Alice` under the row of `alice`,
            /// and names a key that has no row of its own. Off unless set: such a load fails with
            /// [`SqlFault::FoldedId`](crate::SqlFault::FoldedId).
            ///
            /// What is read so decrypts, and never encrypts. It is for as long as it takes to give each id
            /// rows of its own, as the finding [`CollationFolds`](crate::FindingId::CollationFolds) says.
            pub fn folded_ids(mut self, are_read: bool) -> Self {
                self.settings.folded_ids = are_read.into();
                self
            }

            /// As [`replica`](Self::replica), by a URL as [`open`](Self::open) takes it.
            pub fn replica_url(mut self, url: impl Into<String>) -> Self {
                self.settings.replica = Some(Replica::Url(url.into()));
                self
            }

            /// Sets how many connections are open at most, to the primary and to the replica; 10 unless set.
            ///
            /// Writes have half of them. One more is opened while the server is asked to end what was given
            /// up, and up to two more while the table is looked at.
            pub const fn max_connections(mut self, connections: std::num::NonZeroU32) -> Self {
                self.settings.connections_max = connections;
                self
            }

            /// Has each new connection run this SQL, `SET ROLE checkout` say. It is sent as it is.
            ///
            /// Behind a pooler that shares connections it would be run for others, too.
            pub fn on_connect(mut self, sql: impl Into<std::sync::Arc<str>>) -> Self {
                self.settings.on_connect = Some(sql.into());
                self
            }
        }
    };
}

pub(crate) use server_settings;
