//! The leaves: disks that hold bytes.

mod fault;
mod mem;
mod overlay;

pub use fault::{ArmedFault, FAULT_KINDS, Fault, FaultId, FaultKind, FaultMisfit, FaultSpec, FaultTextError, Trigger};
pub use mem::MemBank;
pub use overlay::{
    OriginalChange, OverlayBank, OverlayError, OverlayStatus, overlay_beside, overlay_commit, overlay_discard,
    overlay_status,
};
