//! Tests of the engine as a whole: scripts that read as stories, and arbitrary events.

mod budgets;
mod clearing;
mod comparing;
mod overview;
mod properties;
mod rebuilding;
mod releases;
mod script;
mod sites;
mod tags;
mod talks;
mod transfers;
mod yielding;
