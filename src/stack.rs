//! From `lab.toml` to a running stack: the only place that knows all layers.
