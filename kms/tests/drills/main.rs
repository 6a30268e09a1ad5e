//! Moves from one service to another, with writers running.
