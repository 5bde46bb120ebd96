//! The leaves: disks that hold bytes.

mod fault;
mod mem;

pub use fault::{ArmedFault, FAULT_KINDS, Fault, FaultId, FaultKind, FaultMisfit, FaultSpec, FaultTextError, Trigger};
pub use mem::MemBank;
