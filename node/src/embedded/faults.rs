//! What can be made to go wrong, and when.

use std::sync::{Mutex, PoisonError};

use axum::http::Method;

/// Rules in force at once; the oldest go first. A script has a handful.
const RULES_MAX: usize = 64;

/// Something wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status instead, with an OCI error as body.
    Status {
        /// The status code.
        code: u16,
        /// A `Retry-After` to send with it, in seconds or as an HTTP date.
        retry_after: Option<String>,
    },
    /// Takes the request and never answers.
    Blackhole,
    /// Closes the connection within the body.
    Cut {
        /// Bytes of this body sent before.
        after: u64,
    },
    /// Stops sending within the body and keeps the connection.
    Stall {
        /// Bytes of this body sent before.
        after: u64,
    },
    /// Sends one byte wrong: all its bits flipped.
    Flip {
        /// Its offset in the object.
        offset: u64,
    },
    /// Sends this many zero bytes more than there are. Only seen without a `Content-Length`, see [`Fault::Header`].
    Longer {
        /// How many.
        by: u64,
    },
    /// Sends no faster than this.
    Slow {
        /// Bytes in a second, at least 1.
        bytes_per_s: u64,
    },
    /// Does not do ranges: answers the whole.
    IgnoreRange,
    /// Refuses a range as docker-registry 2.8 does: a 416 that announces the whole object and sends 33 bytes.
    OddRangeNotSatisfiable,
    /// Redirects (307) to the same path elsewhere, as registries do to their storage.
    Redirect {
        /// Scheme, host and port.
        to: String,
    },
    /// Replaces a header of the answer, or leaves it out. Without `content-length` the body is sent in chunks.
    Header {
        /// Its name, in lower case.
        name: &'static str,
        /// Its value, if any.
        value: Option<String>,
    },
}

impl Fault {
    /// Whether it shows only where there is a body.
    const fn is_of_body(&self) -> bool {
        matches!(
            self,
            Self::Cut { .. } | Self::Stall { .. } | Self::Flip { .. } | Self::Longer { .. } | Self::Slow { .. }
        )
    }
}

/// When a fault happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    /// How the request's path starts, such as `/v2/library/app/blobs/`.
    pub path_prefix: String,
    /// What happens.
    pub fault: Fault,
    /// How often; always if `None`.
    pub times: Option<u32>,
}

/// The rules in force.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<FaultRule>>);

impl Faults {
    pub(super) fn add(&self, rule: FaultRule) {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rules.len() >= RULES_MAX {
            rules.remove(0);
        }
        rules.push(rule);
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The faults of this request, each counted as having happened.
    pub(super) fn take(&self, method: &Method, path: &str) -> Vec<Fault> {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = Vec::new();
        for rule in rules.iter_mut() {
            if !path.starts_with(&rule.path_prefix) || (method == Method::HEAD && rule.fault.is_of_body()) {
                continue;
            }
            match &mut rule.times {
                Some(0) => continue,
                Some(left) => *left -= 1,
                None => {}
            }
            faults.push(rule.fault.clone());
        }
        rules.retain(|rule| rule.times != Some(0));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_holds_for_its_paths_and_as_often_as_it_says() {
        let faults = Faults::default();
        let cut = Fault::Cut { after: 1 };
        faults.add(FaultRule { path_prefix: "/v2/a/".to_owned(), fault: cut.clone(), times: Some(2) });
        faults.add(FaultRule { path_prefix: "/v2/".to_owned(), fault: Fault::IgnoreRange, times: None });
        assert_eq!(faults.take(&Method::GET, "/v2/b/blobs/x"), [Fault::IgnoreRange]);
        assert_eq!(faults.take(&Method::HEAD, "/v2/a/blobs/x"), [Fault::IgnoreRange]);
        assert_eq!(faults.take(&Method::GET, "/v2/a/blobs/x"), [cut.clone(), Fault::IgnoreRange]);
        assert_eq!(faults.take(&Method::GET, "/v2/a/blobs/x"), [cut, Fault::IgnoreRange]);
        assert_eq!(faults.take(&Method::GET, "/v2/a/blobs/x"), [Fault::IgnoreRange]);
        faults.clear();
        assert!(faults.take(&Method::GET, "/v2/a/blobs/x").is_empty());
    }
}
