//! The agent against a real PostgreSQL.
