//! Stacks that are wrong on purpose.
