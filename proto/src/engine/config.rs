//! Every number of the engine: unit, default and why.
