//! The uplink that the devices share: how fast it is, and how long it alone needs for so many bytes.

use std::time::Duration;

use crate::config::units::{parse_rate, show_rate};

/// The rate of what leaves the embedded registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Uplink {
    /// Bytes of bodies in a second, over all connections together; `None` for as fast as the machine is.
    pub(super) bytes_per_s: Option<u64>,
}

impl Uplink {
    /// Reads what [`parse_rate`] reads.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { bytes_per_s: parse_rate(text)? })
    }

    /// How long these bytes need if nothing but the uplink takes time; `None` if it is not limited.
    pub(super) fn time_for(self, bytes: u64) -> Option<Duration> {
        let rate = self.bytes_per_s?.max(1);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        // Above 584 years the difference does not matter.
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// For people.
    pub(super) fn shown(self) -> String {
        self.bytes_per_s.map_or_else(|| "unlimited".to_owned(), show_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uplink_needs_its_time() {
        let uplink = Uplink::parse("80mbit").unwrap();
        assert_eq!(uplink.time_for(25_000_000), Some(Duration::from_millis(2500)));
        assert_eq!(uplink.shown(), "80 Mbit/s");
        let unlimited = Uplink::parse("unlimited").unwrap();
        assert_eq!((unlimited.time_for(1), unlimited.shown().as_str()), (None, "unlimited"));
        assert!(Uplink::parse("0.01kbit").unwrap().time_for(u64::MAX).unwrap() > Duration::from_secs(1 << 30));
        assert!(Uplink::parse("80").is_err());
    }
}
