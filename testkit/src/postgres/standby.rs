//! PostgreSQL's standbys: made, promoted, and kept from the news.

use super::{Postgres, wait_until};
use crate::program::{self, unprivileged};
use crate::scratch::Place;

impl Postgres {
    /// Starts a standby that streams from a primary, which knows it by this name: the one that
    /// `synchronous_standby_names` takes, of letters, digits and `_`.
    ///
    /// It can be read. It has the primary's password and settings, and those of
    /// [`set`](Self::set) that were made before: a standby that is promoted waits for the standbys
    /// that its primary waited for.
    #[must_use]
    pub fn standby_of(primary: &Self, name: &str) -> Self {
        let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        assert!(is_plain, "not the plain name of a standby: {name}");
        let place = Place::new("postgres");
        let mut backup = unprivileged(&primary.bin.join("pg_basebackup"));
        backup.args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--no-password"]);
        backup.arg("--pgdata").arg(place.path().join("data"));
        backup.arg(format!(
            "--dbname=host=127.0.0.1 port={} user=postgres application_name={name}",
            primary.port()
        ));
        // It writes the password down for the standby.
        backup.env("PGPASSWORD", &primary.password);
        program::run(backup, b"");
        let (bin, password) = (primary.bin.clone(), primary.password.clone());
        let standby = Self::start_on_data(place, bin, password, primary.settings.clone());
        let streaming = format!(
            "SELECT count(*) FROM pg_stat_replication \
             WHERE application_name = '{name}' AND state = 'streaming'"
        );
        wait_until("a standby streams", || primary.psql("postgres", &streaming) == "1");
        standby
    }

    /// Makes a primary of a standby, on a timeline of its own, and waits until it takes writes.
    ///
    /// The old primary is not told, and goes on if it runs.
    pub fn promote(&self) {
        assert_eq!(self.psql("postgres", "SELECT pg_promote(true, 60)"), "t", "the standby is not promoted");
    }

    /// Keeps a standby from receiving any more: what its primary commits from now on is lost with
    /// the primary.
    pub fn disconnect(&self) {
        self.set("primary_conninfo", "");
        let receivers = "SELECT count(*) FROM pg_stat_wal_receiver";
        wait_until("a standby receives no more", || self.psql("postgres", receivers) == "0");
    }

    /// Returns the timeline that a primary writes on, another after each promotion.
    #[must_use]
    pub fn timeline(&self) -> String {
        self.psql("postgres", "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")
    }
}
