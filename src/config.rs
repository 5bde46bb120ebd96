//! `lab.toml` as types.
