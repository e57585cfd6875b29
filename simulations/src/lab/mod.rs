//! A scenario with real nodes in network namespaces, beside what the simulator says of it.
//!
//! This side reads the scenario and makes a plan of it ([`Plan`]), runs the simulator for the prediction
//! ([`predict`]), hands the plan to `scripts/lab-run`, which builds the network and does what the plan says, and lays
//! what was measured beside what was predicted ([`Verdict`]). [`wire`] is the link between two namespaces that has the
//! simulator's latency, jitter and loss.
//!
//! Invariant: prediction and lab follow the same plan: whatever a scenario leaves to chance is drawn once, by the
//! simulator. What the lab cannot do is said before anything is built.

mod compare;
mod outcome;
mod plan;
mod predict;
mod run;
pub mod wire;

pub use compare::{COPIES_OFF_MAX, LAST_OFF_MAX, Verdict};
pub use outcome::{Measured, PullOutcome};
pub use plan::{DEVICES_MAX, Plan, Unfit};
pub use predict::{PAYLOAD_SHARE, Prediction, Range, predict, settled};
pub use run::{LabError, Tools, measure};
