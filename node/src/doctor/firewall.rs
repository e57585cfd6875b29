//! What this device's own firewall does with the packets that a node needs, as far as its rules say so plainly.
//!
//! A packet of a peer is walked through the rules in their order. A rule that is not understood may or may not concern
//! it; if it lets packets in, nothing is said any more, so that only what is certainly dropped is reported.

use std::collections::BTreeMap;

use serde_json::Value;

/// How deep chains may call each other.
const DEPTH_MAX: usize = 16;
/// Rules that are looked at; more are Kubernetes' own, which concern other packets.
const RULES_MAX: usize = 20_000;

/// A packet's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A packet that comes in from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Its protocol.
    pub protocol: Protocol,
    /// The port that it is for.
    pub port: u16,
    /// What is lost with it, for people.
    pub what: &'static str,
}

/// A packet that is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// What is lost with it, for people.
    pub what: &'static str,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port that it is for.
    pub port: u16,
    /// Whose rule it is: `nft` or `iptables`.
    pub tool: &'static str,
    /// The rule, for people.
    pub rule: String,
    /// The chain, as its tool names it.
    chain: String,
}

impl Blocked {
    /// A command that lets it in until the next boot.
    pub fn accept(&self) -> String {
        let protocol = if self.protocol == Protocol::Tcp { "tcp" } else { "udp" };
        match self.tool {
            "nft" => format!("nft insert rule {} {protocol} dport {} accept", self.chain, self.port),
            _ => format!("iptables -I {} -p {protocol} --dport {} -j ACCEPT", self.chain, self.port),
        }
    }
}

/// Whether a rule concerns a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Matches {
    No,
    Perhaps,
    Yes,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Accepted,
    /// By which rule.
    Dropped(String),
    /// It goes on to the next rule.
    GoesOn,
    /// Nobody can tell.
    Unknown,
}

#[derive(Debug, Clone)]
enum Verdict {
    Accept,
    Drop,
    Return,
    Call(String),
    /// Counts or marks.
    None,
}

#[derive(Debug, Clone)]
struct Rule {
    conditions: Vec<Condition>,
    verdict: Verdict,
    shown: String,
}

#[derive(Debug, Clone)]
enum Condition {
    Protocol(Vec<String>),
    /// Ranges of ports, for one protocol or both.
    Ports(Option<Protocol>, Vec<(u16, u16)>),
    /// Only packets of connections that are there, or of the device itself.
    NotNew,
    /// What every new packet of a peer is.
    Always,
    NotUnderstood,
}

impl Condition {
    fn matches(&self, packet: Packet) -> Matches {
        let name = if packet.protocol == Protocol::Tcp { "tcp" } else { "udp" };
        let known = |yes| if yes { Matches::Yes } else { Matches::No };
        match self {
            Self::Protocol(names) => known(names.iter().any(|other| other == name)),
            Self::Ports(protocol, ranges) => known(
                protocol.is_none_or(|protocol| protocol == packet.protocol)
                    && ranges.iter().any(|(first, last)| (*first..=*last).contains(&packet.port)),
            ),
            Self::NotNew => Matches::No,
            Self::Always => Matches::Yes,
            Self::NotUnderstood => Matches::Perhaps,
        }
    }
}

/// The chains of a table.
#[derive(Debug, Clone, Default)]
struct Chains(BTreeMap<String, Vec<Rule>>);

impl Chains {
    fn fate(&self, chain: &str, packet: Packet, depth: usize) -> Fate {
        if depth > DEPTH_MAX {
            return Fate::Unknown;
        }
        for rule in self.0.get(chain).into_iter().flatten() {
            let matches =
                rule.conditions.iter().map(|condition| condition.matches(packet)).min().unwrap_or(Matches::Yes);
            if matches == Matches::No {
                continue;
            }
            let fate = match &rule.verdict {
                Verdict::None => continue,
                Verdict::Accept => Fate::Accepted,
                Verdict::Drop => Fate::Dropped(rule.shown.clone()),
                Verdict::Return if matches == Matches::Yes => return Fate::GoesOn,
                Verdict::Return => return Fate::Unknown,
                Verdict::Call(other) => self.fate(other, packet, depth + 1),
            };
            match (fate, matches) {
                (Fate::GoesOn, _) => {}
                (fate, Matches::Yes) => return fate,
                // It may be dropped here, and may go on: what comes later may drop it anyway.
                (Fate::Dropped(_), _) => {}
                _ => return Fate::Unknown,
            }
        }
        Fate::GoesOn
    }
}

/// What `nft -j list ruleset` drops of the packets.
pub fn judge_nft(ruleset: &Value, packets: &[Packet]) -> Vec<Blocked> {
    let items = ruleset.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let word = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut tables: BTreeMap<(String, String), Chains> = BTreeMap::new();
    let mut bases = Vec::new();
    for item in items.iter().take(RULES_MAX) {
        if let Some(chain) = item.get("chain") {
            let table = (word(chain, "family"), word(chain, "table"));
            tables.entry(table.clone()).or_default().0.entry(word(chain, "name")).or_default();
            if word(chain, "hook") == "input" && ["ip", "inet"].contains(&table.0.as_str()) {
                bases.push((table, word(chain, "name"), word(chain, "policy") == "drop"));
            }
        } else if let Some(rule) = item.get("rule") {
            let table = (word(rule, "family"), word(rule, "table"));
            tables.entry(table).or_default().0.entry(word(rule, "chain")).or_default().push(nft_rule(rule));
        }
    }
    let mut blocked = Vec::new();
    for packet in packets {
        for (table, chain, drops) in &bases {
            let Some(chains) = tables.get(table) else { continue };
            let place = format!("{} {} {chain}", table.0, table.1);
            let rule = match chains.fate(chain, *packet, 0) {
                Fate::Dropped(rule) => format!("chain {place}: {rule}"),
                Fate::GoesOn if *drops => format!("chain {place}: policy drop, and no rule accepts it"),
                _ => continue,
            };
            let Packet { what, protocol, port } = *packet;
            blocked.push(Blocked { what, protocol, port, tool: "nft", rule, chain: place });
            break;
        }
    }
    blocked
}

fn nft_rule(rule: &Value) -> Rule {
    let expressions = rule.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let (mut conditions, mut verdict) = (Vec::new(), Verdict::None);
    let mut shown = Vec::new();
    for expression in expressions {
        let Some((name, value)) = expression.as_object().and_then(|object| object.iter().next()) else { continue };
        match name.as_str() {
            "match" => {
                conditions.push(nft_match(value));
                let side = value.pointer("/left/payload/field").or_else(|| value.pointer("/left/meta/key"));
                let right = value.get("right").map(Value::to_string).unwrap_or_default();
                shown.push(format!("{} {right}", side.and_then(Value::as_str).unwrap_or("...")));
            }
            "accept" => verdict = Verdict::Accept,
            "drop" | "reject" => {
                verdict = Verdict::Drop;
                shown.push(name.clone());
            }
            "return" => verdict = Verdict::Return,
            "jump" | "goto" => {
                let target = value.get("target").and_then(Value::as_str).unwrap_or_default();
                verdict = Verdict::Call(target.to_owned());
            }
            "counter" | "log" | "comment" => {}
            _ => conditions.push(Condition::NotUnderstood),
        }
    }
    Rule { conditions, verdict, shown: shown.join(" ") }
}

fn nft_match(value: &Value) -> Condition {
    let word = |path: &str| value.pointer(path).and_then(Value::as_str);
    if word("/op") != Some("==") && word("/op") != Some("in") {
        return Condition::NotUnderstood;
    }
    let Some(right) = value.get("right") else { return Condition::NotUnderstood };
    let set = right.get("set").unwrap_or(right).as_array().cloned().unwrap_or_else(|| vec![right.clone()]);
    let names: Vec<String> = set.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    let range = |one: &Value| match one.get("range").and_then(Value::as_array) {
        Some(range) => Some((port(range.first()?)?, port(range.get(1)?)?)),
        None => Some((port(one)?, port(one)?)),
    };
    match (word("/left/payload/protocol"), word("/left/payload/field"), word("/left/meta/key")) {
        (Some(of @ ("tcp" | "udp" | "th")), Some("dport"), _) => {
            let protocol = match of {
                "tcp" => Some(Protocol::Tcp),
                "udp" => Some(Protocol::Udp),
                _ => None,
            };
            match set.iter().map(range).collect::<Option<Vec<_>>>() {
                Some(ranges) => Condition::Ports(protocol, ranges),
                None => Condition::NotUnderstood,
            }
        }
        (Some("ip"), Some("protocol"), _) | (_, _, Some("l4proto")) => Condition::Protocol(names),
        (_, _, Some("iif" | "iifname")) if names.iter().all(|name| name == "lo") => Condition::NotNew,
        _ if word("/left/ct/key") == Some("state") => match names.iter().any(|name| name == "new") {
            true => Condition::Always,
            false => Condition::NotNew,
        },
        _ => Condition::NotUnderstood,
    }
}

/// What the rules that `iptables-save -t filter` prints drop of the packets.
pub fn judge_iptables(saved: &str, packets: &[Packet]) -> Vec<Blocked> {
    let (mut chains, mut drops, mut in_filter) = (Chains::default(), false, true);
    for line in saved.lines().take(RULES_MAX) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [table] if table.starts_with('*') => in_filter = *table == "*filter",
            [":INPUT", "DROP", ..] if in_filter => drops = true,
            ["-A", chain, rest @ ..] if in_filter => {
                chains.0.entry((*chain).to_owned()).or_default().push(iptables_rule(rest, line));
            }
            _ => {}
        }
    }
    let blocked = packets.iter().filter_map(|packet| {
        let rule = match chains.fate("INPUT", *packet, 0) {
            Fate::Dropped(rule) => rule,
            Fate::GoesOn if drops => "policy of INPUT is DROP, and no rule accepts it".to_owned(),
            _ => return None,
        };
        let Packet { what, protocol, port } = *packet;
        Some(Blocked { what, protocol, port, tool: "iptables", rule, chain: "INPUT".to_owned() })
    });
    blocked.collect()
}

fn iptables_rule(words: &[&str], line: &str) -> Rule {
    let (mut conditions, mut verdict) = (Vec::new(), Verdict::None);
    let negated = words.contains(&"!");
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().copied().unwrap_or_default();
        match *word {
            // Names a module whose options follow, or a comment.
            "-m" | "--comment" | "--reject-with" | "--log-prefix" | "--log-level" => drop(value()),
            "-p" => conditions.push(Condition::Protocol(vec![value().to_owned()])),
            "--dport" | "--dports" => {
                let range = |part: &str| {
                    let (first, last) = part.split_once(':').unwrap_or((part, part));
                    Some((first.parse().ok()?, last.parse().ok()?))
                };
                let ranges: Option<Vec<_>> = value().split(',').map(range).collect();
                conditions.push(ranges.map_or(Condition::NotUnderstood, |ranges| Condition::Ports(None, ranges)));
            }
            "--state" | "--ctstate" => {
                let is_new = value().split(',').any(|state| state == "NEW");
                conditions.push(if is_new { Condition::Always } else { Condition::NotNew });
            }
            "-i" => {
                let is_loopback = value() == "lo";
                conditions.push(if is_loopback { Condition::NotNew } else { Condition::NotUnderstood });
            }
            "-j" | "-g" => {
                verdict = match value() {
                    "ACCEPT" => Verdict::Accept,
                    "DROP" | "REJECT" => Verdict::Drop,
                    "RETURN" => Verdict::Return,
                    "LOG" | "MARK" | "CONNMARK" | "NFLOG" => Verdict::None,
                    other => Verdict::Call(other.to_owned()),
                }
            }
            _ => conditions.push(Condition::NotUnderstood),
        }
    }
    if negated {
        conditions = vec![Condition::NotUnderstood];
    }
    Rule { conditions, verdict, shown: line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u16; 0] = [];
    const PACKETS: [Packet; 3] = [
        Packet { protocol: Protocol::Udp, port: 5353, what: "multicast DNS" },
        Packet { protocol: Protocol::Tcp, port: 7118, what: "peers" },
        Packet { protocol: Protocol::Tcp, port: 7119, what: "bytes" },
    ];

    fn ports(blocked: &[Blocked]) -> Vec<u16> {
        blocked.iter().map(|blocked| blocked.port).collect()
    }

    fn iptables(rules: &str) -> Vec<u16> {
        ports(&judge_iptables(rules, &PACKETS))
    }

    #[test]
    fn iptables_in_the_styles_that_are_found() {
        assert_eq!(iptables("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n"), NONE);
        assert_eq!(iptables("*filter\n:INPUT DROP [0:0]\nCOMMIT\n"), [5353, 7118, 7119]);
        let drops = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p udp -m udp --dport 5353 -j DROP\n";
        assert_eq!(iptables(drops), [5353]);
        let blocked = judge_iptables(drops, &PACKETS);
        assert!(blocked[0].rule.contains("--dport 5353 -j DROP"), "{blocked:?}");
        assert_eq!(blocked[0].accept(), "iptables -I INPUT -p udp --dport 5353 -j ACCEPT");
        let usual = "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate \
                     RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -p tcp -m multiport --dports 22,7118:7119 -j ACCEPT\n";
        assert_eq!(iptables(usual), [5353]);
        let called =
            "*filter\n:INPUT ACCEPT [0:0]\n:own - [0:0]\n-A INPUT -j own\n-A own -p tcp -j REJECT --reject-with x\n";
        assert_eq!(iptables(called), [7118, 7119]);
        let perhaps = "*filter\n:INPUT DROP [0:0]\n-A INPUT -s 10.0.0.0/8 -j ACCEPT\n";
        assert_eq!(iptables(perhaps), NONE, "peers may be there");
        let negated = "*filter\n:INPUT DROP [0:0]\n-A INPUT ! -p tcp -j ACCEPT\n";
        assert_eq!(iptables(negated), NONE, "whether it accepts is not understood");
        let elsewhere = "*mangle\n-A INPUT -j DROP\n*filter\n:INPUT ACCEPT [0:0]\n";
        assert_eq!(iptables(elsewhere), NONE);
    }

    #[test]
    fn nftables_in_the_styles_that_are_found() {
        let chain = |policy: &str| {
            format!(r#"{{"chain":{{"family":"inet","table":"f","name":"in","hook":"input","policy":"{policy}"}}}}"#)
        };
        let rule = |expr: &str| format!(r#"{{"rule":{{"family":"inet","table":"f","chain":"in","expr":[{expr}]}}}}"#);
        let dport = |protocol: &str, right: &str| {
            format!(
                r#"{{"match":{{"op":"==","right":{right},"left":{{"payload":{{"protocol":"{protocol}","field":"dport"}}}}}}}}"#
            )
        };
        let judge = |items: &[String]| {
            let ruleset = format!(r#"{{"nftables":[{{"metainfo":{{}}}},{}]}}"#, items.join(","));
            judge_nft(&serde_json::from_str(&ruleset).unwrap(), &PACKETS)
        };
        assert_eq!(ports(&judge(&[chain("accept")])), NONE);
        assert_eq!(ports(&judge(&[chain("drop")])), [5353, 7118, 7119]);
        let drop = rule(&format!(r#"{},{{"counter":{{}}}},{{"drop":null}}"#, dport("udp", "5353")));
        let blocked = judge(&[chain("accept"), drop]);
        assert_eq!(ports(&blocked), [5353]);
        assert_eq!(blocked[0].accept(), "nft insert rule inet f in udp dport 5353 accept");
        let accept = rule(&format!(r#"{},{{"accept":null}}"#, dport("tcp", r#"{"set":[22,{"range":[7118,7119]}]}"#)));
        assert_eq!(ports(&judge(&[chain("drop"), accept])), [5353]);
        let state = r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}}"#;
        assert_eq!(ports(&judge(&[chain("drop"), rule(&format!(r#"{state},{{"accept":null}}"#))])), [5353, 7118, 7119]);
        let strange = rule(r#"{"xt":{"type":"match"}},{"accept":null}"#);
        assert_eq!(ports(&judge(&[chain("drop"), strange])), NONE, "it may let them in");
    }
}
