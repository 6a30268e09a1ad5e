//! Variables of a server, read by their names.

use sqlx::mysql::MySqlConnection;
use sqlx::{Row as _, raw_sql};

/// What the server says of itself, by name.
#[derive(Default)]
pub(super) struct Named(Vec<(String, String)>);

impl Named {
    pub(super) async fn read(session: &mut MySqlConnection, sql: &'static str) -> Result<Self, sqlx::Error> {
        let rows = raw_sql(sql).fetch_all(session).await?;
        Ok(Self(
            rows.iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect::<Result<_, sqlx::Error>>()?,
        ))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        self.get(name).is_some_and(|is| is.eq_ignore_ascii_case(value))
    }

    pub(super) fn join(&self, names: &[&str]) -> String {
        names.iter().filter_map(|name| self.get(name)).collect::<Vec<_>>().join(" ")
    }
}
