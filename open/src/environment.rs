//! Where variables are read from. One that is empty is not set: scripts and container files that hand a variable
//! on have no other way to leave it out.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::sync::Arc;

/// The variables that a description may name, or be.
#[derive(Clone, Default)]
pub struct Environment(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    Process,
    Given(Arc<BTreeMap<String, String>>),
}

impl Environment {
    /// The process's own.
    #[must_use]
    pub const fn of_process() -> Self {
        Self(Source::Process)
    }

    /// These variables and no others: for tests, and for programs that are given them otherwise.
    pub fn of<N: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(Source::Given(Arc::new(variables.collect())))
    }

    /// Returns a variable that holds text.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place for it")]
    pub fn text(&self, name: &str) -> Option<String> {
        let value = match &self.0 {
            Source::Process => env::var_os(name)?.into_string().ok()?,
            Source::Given(variables) => variables.get(name)?.clone(),
        };
        Some(value).filter(|value| !value.is_empty())
    }

    /// The names of those that begin so and are set.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = match &self.0 {
            Source::Process => env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect(),
            Source::Given(variables) => variables.keys().cloned().collect(),
        };
        names.retain(|name| name.starts_with(prefix) && self.text(name).is_some());
        names.sort_unstable();
        names
    }
}

impl fmt::Debug for Environment {
    /// There may be secrets in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}
