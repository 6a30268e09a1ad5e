//! Word from outside that rows changed: what is cached of them stays, and is no longer fresh.
//!
//! A flight that began before is of no use then, even one in the same tick of the clocks: flights
//! are told apart by their numbers.

use super::Hierarchy;
use crate::partition::is_system_key_id;
use crate::record::KeyId;

impl Hierarchy {
    /// Notes that the rows of this key may have changed.
    pub(crate) fn invalidate(&self, id: &KeyId) {
        self.intermediate.doubt(id.as_str());
        self.system.doubt(id.as_str());
        // After the keyrings: a flight that finds no row notes so first and then asks them.
        self.missing.forget_all_of(id);
        if is_system_key_id(id) {
            self.doubt_children_of(id);
        }
    }

    /// Notes that any row may have changed.
    pub(crate) fn invalidate_everything(&self) {
        for ring in self.system.rings().into_iter().chain(self.intermediate.rings()) {
            ring.doubt();
        }
        self.missing.forget_everything();
    }

    /// A flight for a child asks for its parent too. And a child may hold what was known of a parent
    /// whose own keyring is gone, so that only the children lead to it.
    fn doubt_children_of(&self, id: &KeyId) {
        for ring in self.intermediate.rings() {
            ring.flights().outdate_under_way();
            for parent in ring.keys().versions.iter().filter_map(|key| key.parent()) {
                if parent.meta.id() == id {
                    parent.state.doubt();
                }
            }
        }
    }
}
