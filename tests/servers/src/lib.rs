//! Real database servers for the tests, started on loopback and stopped with them.
