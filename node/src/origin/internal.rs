//! Addresses that a registry which nobody configured must not be at: the device's own, its LAN's, and others that mean
//! nothing outside.
//!
//! Whoever may ask the mirror names the registry (`?ns=`), and a registry says where to go on. Invariant: without an
//! `[[origin]]` for it, neither makes this node connect to such an address: not by an address in a URL, nor by a name
//! that stands for one when the connection is made, nor by a redirect. Where a proxy is set in the environment it looks
//! names up, and is what decides.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use thiserror::Error;
use url::{Host, Url};

/// Variables that name a proxy for requests over HTTPS.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// First 96 bits of addresses that stand for one of IPv4 (RFC 6052).
const NAT64_PREFIX: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// A place that only an `[[origin]]` may name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{host} is an address of this device or its LAN; if that is meant, add an `[[origin]]` with `registry = \"...\"` for it"
)]
pub(super) struct Internal {
    host: String,
}

/// Refuses a URL whose host is such an address, or the device itself by name.
pub(super) fn check(url: &Url) -> Result<(), Internal> {
    let internal = match url.host() {
        Some(Host::Ipv4(ip)) => is_internal(ip.into()),
        Some(Host::Ipv6(ip)) => is_internal(ip.into()),
        Some(Host::Domain(name)) => is_this_device(name),
        None => false,
    };
    if internal { Err(Internal { host: url.host_str().unwrap_or_default().to_owned() }) } else { Ok(()) }
}

/// RFC 6761, section 6.3: such names stand for loopback everywhere.
fn is_this_device(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether a proxy looks names up.
pub(super) fn is_proxied() -> bool {
    PROXY_VARIABLES.iter().any(|variable| env::var_os(variable).is_some_and(|value| !value.is_empty()))
}

/// A name's addresses without the internal ones.
pub(super) fn outside(host: &str, mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Internal> {
    let any = !found.is_empty();
    found.retain(|address| !is_internal(address.ip()));
    if any && found.is_empty() { Err(Internal { host: host.to_owned() }) } else { Ok(found) }
}

/// Whether an address is of no use to somebody outside (IANA's special-purpose registries, RFC 6890).
fn is_internal(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_internal_v4(ip),
        IpAddr::V6(ip) => is_internal_v6(ip),
    }
}

fn is_internal_v4(ip: Ipv4Addr) -> bool {
    let [first, second, third, _] = ip.octets();
    // 0.0.0.0/8 (this network), 100.64.0.0/10 (carriers' own), 192.0.0.0/24 (protocols), 198.18.0.0/15 (benchmarks),
    // 240.0.0.0/4 (reserved).
    let special = first == 0
        || (first == 100 && second & 0xc0 == 64)
        || (first == 192 && second == 0 && third == 0)
        || (first == 198 && second & 0xfe == 18)
        || first >= 240;
    special || ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_multicast()
}

fn is_internal_v6(ip: Ipv6Addr) -> bool {
    if let Some(mapped) = ip.to_ipv4_mapped() {
        return is_internal_v4(mapped);
    }
    let segments = ip.segments();
    if segments[..NAT64_PREFIX.len()] == NAT64_PREFIX {
        let [.., a, b, c, d] = ip.octets();
        return is_internal_v4(Ipv4Addr::new(a, b, c, d));
    }
    // fec0::/10: local to a site, before fc00::/7 was.
    let site_local = segments[0] & 0xffc0 == 0xfec0;
    ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_unique_local()
        || ip.is_unicast_link_local()
        || ip.is_multicast()
        || site_local
        || segments[..6] == [0; 6]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn internal(ip: &str) -> bool {
        is_internal(ip.parse().unwrap())
    }

    #[test]
    fn addresses_of_the_device_and_its_lan_are_internal() {
        let inside = [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.0.1",
            "224.0.0.251",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::fb",
        ];
        for ip in inside {
            assert!(internal(ip), "{ip}");
        }
        let outside = [
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ];
        for ip in outside {
            assert!(!internal(ip), "{ip}");
        }
    }

    #[test]
    fn urls_are_judged_by_their_hosts_however_they_are_written() {
        let refused = |url: &str| check(&Url::parse(url).unwrap()).is_err();
        let inside = [
            "https://127.0.0.1/",
            "https://127.1:5000/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]:5000/",
            "https://[::ffff:10.0.0.1]/",
            "https://localhost/",
            "https://LOCALHOST.:5000/",
            "https://a.localhost/",
        ];
        for url in inside {
            assert!(refused(url), "{url}");
        }
        for url in ["https://registry.test/", "https://localhost.test/", "https://1.1.1.1/"] {
            assert!(!refused(url), "{url}");
        }
    }

    #[test]
    fn of_a_names_addresses_the_internal_ones_are_left_out() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (inside, public) = (address("10.0.0.1:0"), address("1.1.1.1:0"));
        assert_eq!(outside("a.test", vec![inside, public]), Ok(vec![public]));
        assert_eq!(outside("a.test", vec![]), Ok(vec![]));
        let error = outside("a.test", vec![inside]).unwrap_err().to_string();
        assert!(error.contains("a.test") && error.contains("[[origin]]"), "{error}");
    }
}
