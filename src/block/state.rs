//! How well the sectors of a volume are kept.

use super::{Extent, Sectors};

/// What stands between some sectors and their loss.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// All the redundancy there should be.
    InSync,
    /// Readable, with less redundancy than there should be, and nothing under way to mend that.
    Degraded,
    /// Readable, with less redundancy than there should be until recovery or resync gets there.
    Recovering,
    /// Not to be had.
    Lost,
}

/// A volume that knows the state of its sectors.
pub trait States {
    /// The states of the first sectors of `extent`, in order, no two neighbours alike: of all of them, or of as many
    /// as are quickly told, at least one. Each comes with how many sectors it is true of.
    fn states(&self, extent: Extent) -> Vec<(Sectors, State)>;
}
