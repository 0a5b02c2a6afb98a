//! The integration tests: real Redis, real HTTP, several nodes in one process.
