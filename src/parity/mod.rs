//! P and Q over byte slices.
