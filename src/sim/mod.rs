//! Simulation: the same array in a virtual world.
