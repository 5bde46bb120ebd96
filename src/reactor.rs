//! Real time: drives a stack on real files.
