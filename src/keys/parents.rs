//! What is known of system keys, for the keys under them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::key::state::KeyState;
use crate::record::KeyId;

/// What is known of system keys, by their ids, for as long as anybody holds it. The keys under a system
/// key share it, and may outlive its keyring, and what the keyring holds of it: so word that its row
/// changed finds them, however many there are.
#[derive(Debug, Default)]
pub(crate) struct Parents(Mutex<HashMap<KeyId, Vec<Weak<KeyState>>>>);

impl Parents {
    /// Notes what is known of a system key, before any key under it shares that.
    pub(super) fn note(&self, id: &KeyId, state: &Arc<KeyState>) {
        let mut states = self.states();
        // There are few, and seldom a new one.
        states.retain(|_, states| {
            states.retain(|state| state.strong_count() > 0);
            !states.is_empty()
        });
        let states = states.entry(id.clone()).or_default();
        if !states.iter().any(|held| held.as_ptr() == Arc::as_ptr(state)) {
            states.push(Arc::downgrade(state));
        }
    }

    /// Notes that the row of the system key may have changed.
    pub(super) fn invalidate(&self, id: &KeyId) {
        if let Some(states) = self.states().get(id) {
            states.iter().filter_map(Weak::upgrade).for_each(|state| state.invalidate());
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<KeyId, Vec<Weak<KeyState>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalidation_reaches_all_that_is_held_of_a_system_key_and_nothing_of_another() {
        let parents = Parents::default();
        let (id, other) =
            (KeyId::new("_SK_checkout_payments"), KeyId::new("_SK_checkout_payments_eu-west-1"));
        let [first, second, of_other] = [(); 3].map(|()| {
            let state = Arc::<KeyState>::default();
            state.mark_checked(crate::clock::Moment { wall: 1, monotonic: 1 }, true);
            state
        });
        for (id, state) in [(&id, &first), (&id, &second), (&id, &first), (&other, &of_other)] {
            parents.note(id, state);
        }
        parents.invalidate(&id);
        assert_eq!([&first, &second, &of_other].map(|state| state.is_invalidated()), [true, true, false]);
    }

    #[test]
    fn nothing_is_remembered_of_system_keys_that_nobody_holds() {
        let parents = Parents::default();
        for number in 0..100 {
            parents.note(&KeyId::new(format!("_SK_checkout_{number}")), &Arc::default());
        }
        let held = Arc::default();
        for _ in 0..100 {
            parents.note(&KeyId::new("_SK_checkout_payments"), &held);
            parents.note(&KeyId::new("_SK_checkout_payments"), &Arc::default());
        }
        let states = parents.states();
        assert_eq!((states.len(), states.values().map(Vec::len).sum::<usize>()), (1, 2));
    }
}
