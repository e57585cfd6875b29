use super::*;
use crate::{
    admin::types::SiteProblem,
    cli::top::testing::{MIB, busy, device, digest, idle, peer_id, transfer},
};

const SECOND: Duration = Duration::from_secs(1);

fn seen(model: &Model) -> Seen {
    model.seen(Duration::ZERO, TransferOrder::default(), DeviceOrder::default())
}

fn model_of(answers: impl IntoIterator<Item = SiteStatus>) -> Model {
    let mut answers = answers.into_iter();
    let mut model = Model::new(answers.next().unwrap(), SECOND);
    answers.for_each(|site| model.take(site));
    model
}

#[test]
fn rates_and_times_left_follow_from_two_answers() {
    let model = model_of([busy(0)]);
    assert!(seen(&model).transfers.iter().all(|row| row.bytes_per_s == 0 && row.left.is_none()), "one says nothing");
    let model = model_of([busy(0), busy(4)]);
    let rows = seen(&model).transfers;
    let row = |name: &str| rows.iter().find(|row| row.name.ends_with(name)).unwrap();
    let first = row("aaaaaaaa");
    assert_eq!((first.bytes_per_s, first.left), (2 * MIB, Some(Duration::from_secs(26))));
    assert_eq!((first.had, first.wanted, first.here, first.from_registry), (48 * MIB, Some(100 * MIB), true, true));
    assert_eq!(first.doing, "from 10.0.0.3, registry registry.example");
    assert_eq!(row("bbbbbbbb").doing, "from 10.0.0.2, 10.0.0.3, 10.0.0.4 and 1 more");
    let waits = row("cccccccc");
    assert_eq!((waits.doing.as_str(), waits.left), ("waits for a window, in 3 h", None));
    // One has all of it, two others 54 MiB together, at 6 MiB a second.
    let elsewhere = row("dddddddd");
    assert_eq!((elsewhere.had, elsewhere.wanted), (154 * MIB, Some(300 * MIB)));
    assert_eq!((elsewhere.bytes_per_s, elsewhere.left, elsewhere.here), (6 * MIB, Some(24 * SECOND), false));
    assert_eq!(elsewhere.doing, "2 other devices want it, from its registry: 10.0.0.4");
    assert_eq!(elsewhere.name, "app:1.5 dddddddd");
}

#[test]
fn rates_are_those_of_the_last_seconds_whatever_comes_twice_or_late() {
    // Nothing for long, then a lot: what was before the span does not count.
    let mut answers: Vec<_> = (0..20).map(busy).collect();
    for (at, answer) in answers.iter_mut().enumerate() {
        let moved = (at as u64).saturating_sub(14) * MIB;
        answer.node.transfers = vec![transfer(1, moved, &[])];
    }
    let model = model_of(answers.clone());
    assert_eq!(seen(&model).transfers[0].bytes_per_s, MIB);
    // The same answer again changes nothing.
    let mut again = model_of(answers.clone());
    again.take(answers[19].clone());
    assert_eq!(seen(&again), seen(&model));
    // What stands still has no rate once the span is over.
    let last = answers[19].node.transfers.clone();
    let still = (20..30).map(|second| {
        let mut site = busy(second);
        site.node.transfers = last.clone();
        site
    });
    let model = model_of(answers.into_iter().chain(still));
    assert_eq!((seen(&model).transfers[0].bytes_per_s, seen(&model).transfers[0].left), (0, None));
}

#[test]
fn a_node_that_began_again_and_one_that_was_away_for_long_begin_anew() {
    let mut model = model_of([busy(0), busy(4)]);
    let mut restarted = busy(0);
    restarted.node.uptime_s = 1.0;
    restarted.node.transfers[0].bytes = 90 * MIB;
    model.take(restarted.clone());
    assert_eq!(seen(&model).transfers[0].bytes_per_s, 0);
    restarted.node.uptime_s = 2.0;
    restarted.node.transfers[0].bytes = 91 * MIB;
    model.take(restarted);
    assert_eq!(seen(&model).transfers[0].bytes_per_s, MIB);
    let model = model_of([busy(0), busy(40)]);
    assert_eq!(seen(&model).transfers[0].bytes_per_s, 0, "what passed in a pause is no rate");
    let mut other = busy(4);
    other.node.peer_id = peer_id(77);
    let model = model_of([busy(0), other]);
    assert_eq!(seen(&model).transfers[0].bytes_per_s, 0, "another node on the same socket");
}

#[test]
fn a_node_that_is_gone_is_said_and_forgotten_when_it_is_back() {
    let mut model = model_of([busy(0)]);
    assert_eq!(seen(&model).lost, None);
    model.miss("no node answers on /run/\x1b[31msocket", 10 * SECOND);
    model.miss("it is slow", 20 * SECOND);
    let lost = model.seen(72 * SECOND, TransferOrder::default(), DeviceOrder::default()).lost.unwrap();
    assert_eq!(lost, "NO ANSWER for 1 min 02 s: it is slow. Asking again; what you see is from before.");
    assert_eq!(seen(&model).transfers.len(), 4, "what was known stays");
    model.take(busy(30));
    assert_eq!(seen(&model).lost, None);
}

#[test]
fn the_site_is_said_in_a_line() {
    let line = |site: SiteStatus| seen(&model_of([site])).site;
    assert_eq!(line(idle(5.0, 0)), ["1 device, open to all", "uplink unused", "saved 300 MiB", "75 % from neighbours"],);
    let model = model_of([busy(0), busy(4)]);
    assert_eq!(
        seen(&model).site,
        ["5 devices, 3 linked, open to all", "uplink 1.03 copies, 2.00 MiB/s", "saved 308 MiB", "75 % from neighbours"],
    );
    assert_eq!(line(busy(0))[1], "uplink 1.03 copies, idle");
    let mut fresh = idle(1.0, 2);
    (fresh.node.bytes_from_origin, fresh.node.bytes_from_peers) = (0, 0);
    assert_eq!(line(fresh), ["3 devices, open to all", "uplink unused", "saved 0 B"]);
    let admission = |mode: &str, problem: Option<&str>| {
        let mut site = idle(1.0, 0);
        let told = serde_json::json!({"mode": mode, "authorities": [], "problem": problem, "members": 0, "revocations": 0,
            "refused": {}, "refused_by_peers": {}});
        site.node.admission = Some(serde_json::from_value(told).unwrap());
        line(site).remove(0)
    };
    assert_eq!(admission("fleet", None), "1 device, admitted");
    assert_eq!(admission("fleet", Some("expired")), "1 device, NOT ADMITTED");
    assert_eq!(admission("alone", Some("no fleet")), "1 device, NO FLEET");
    assert_eq!(admission("open", None), "1 device, open to all");
}

#[test]
fn the_uplink_is_what_crossed_lately_against_one_copy_of_it() {
    assert_eq!(uplink(&idle(1.0, 3)), None);
    // The first is on its way; of the others one holds it already, so a copy of each crossed or is to come, and of what
    // crossed twice more than one did. What crossed more than an hour ago does not count.
    assert_eq!(uplink(&busy(0)), Some(Uplink { crossed: (40 + 100 + 100 + 104) * MIB, copy: 400 * MIB }));
}

#[test]
fn transfers_are_sorted_as_asked() {
    let model = model_of([busy(0), busy(4)]);
    let names = |order| {
        let rows = model.seen(Duration::ZERO, order, DeviceOrder::default()).transfers;
        rows.iter().map(|row| row.name.chars().last().unwrap()).collect::<String>()
    };
    assert_eq!(names(TransferOrder::Here), "abcd");
    assert_eq!(names(TransferOrder::Rate), "dabc");
    assert_eq!(names(TransferOrder::Left), "dabc");
    assert_eq!(names(TransferOrder::Name), "abcd");
}

#[test]
fn devices_are_sorted_as_asked_behind_this_one() {
    let mut then = idle(10.0, 12);
    then.devices[3].penalised = true;
    then.devices[5].wants = 1;
    then.devices[6].fetches = 1;
    then.devices[7].connected = false;
    then.devices.reverse();
    let mut now = then.clone();
    now.node.uptime_s = 12.0;
    now.devices[2].sent_bytes += 2 * MIB;
    now.node.bytes_to_peers += 2 * MIB;
    let model = model_of([then, now]);
    let rows = |order| model.seen(Duration::ZERO, TransferOrder::default(), order).devices;
    let names = |order| rows(order).into_iter().map(|row| row.name).collect::<Vec<_>>();
    let by_name = names(DeviceOrder::Name);
    assert_eq!(by_name[..3], ["this device", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(by_name[12], "10.0.0.13", "addresses are numbers");
    let states: Vec<State> = rows(DeviceOrder::State).into_iter().skip(1).map(|row| row.state).collect();
    assert_eq!(states[..4], [State::Distrusted, State::Fetching, State::Getting, State::Idle]);
    assert_eq!(states[11], State::Apart);
    assert_eq!(names(DeviceOrder::Rate)[1], "10.0.0.11");
    let fastest = &rows(DeviceOrder::Rate)[..2];
    assert_eq!((fastest[0].outgoing, fastest[1].outgoing, fastest[1].incoming), (MIB, MIB, 0));
    let most = rows(DeviceOrder::Holds);
    assert_eq!((most[1].name.as_str(), most[12].holds), ("10.0.0.2", None), "what is not known is last");
}

#[test]
fn devices_with_one_address_are_told_apart_by_their_ids() {
    let mut site = idle(1.0, 3);
    site.devices[1].address = site.devices[0].address.clone();
    site.devices[2].address = None;
    let names: Vec<String> = seen(&model_of([site])).devices.into_iter().map(|row| row.name).collect();
    assert_eq!(names, ["this device", "10.0.0.2 …000001", "10.0.0.2 …000002", "…000003"]);
}

#[test]
fn no_text_of_others_can_command_a_terminal() {
    let evil = "\x1b]0;owned\x07\x1b[2J\u{9b}1m\u{202e}\r\n";
    let mut site = busy(0);
    let first = &mut site.devices[0];
    (first.version, first.platform, first.address) = (Some(evil.into()), Some(evil.into()), Some(evil.into()));
    site.devices.push(SiteDevice { peer_id: evil.into(), address: None, ..device(9) });
    site.under_way[3].image = Some(format!("a/{evil}"));
    site.under_way[3].fetching = vec![evil.into()];
    site.under_way[2].digest = evil.into();
    site.node.transfers[0].sources = vec![evil.into(), format!("peer {evil}"), format!("origin {evil}")];
    site.node.transfers[2].waits_for = Some(evil.into());
    site.node.transfers.push(transfer(3, 0, &[]));
    site.node.transfers[3].digest = format!("sha256:{evil}");
    (site.node.version, site.node.fleet, site.node.platform) = (evil.into(), evil.into(), evil.into());
    site.node.peer_id = evil.into();
    let problem = SiteProblem { severity: Severity::Note, what: evil.into(), next: evil.into() };
    site.problems.push(problem);
    let mut model = model_of([site]);
    model.miss(evil, Duration::ZERO);
    let all = format!("{:#?}", Unescaped(&seen(&model)));
    assert!(!all.contains(['\x1b', '\x07', '\u{9b}', '\u{202e}', '\r']), "{all:?}");
    assert!(all.contains("\u{fffd}]0;owned"), "they are shown, so that somebody sees them");
}

/// Every text of a sight as it is, since `Debug` escapes.
struct Unescaped<'a>(&'a Seen);

impl std::fmt::Debug for Unescaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Seen { title, site, uplink: _, problems, transfers, transfers_total: _, devices, devices_total: _, lost } =
            self.0;
        writeln!(f, "{title}\n{}\n{}", site.join("\n"), lost.as_deref().unwrap_or_default())?;
        for Problem { severity: _, what, next } in problems {
            writeln!(f, "{what}\n{next}")?;
        }
        for transfer in transfers {
            writeln!(f, "{}\n{}", transfer.name, transfer.doing)?;
        }
        for Device { name, id, platform, version, .. } in devices {
            writeln!(f, "{name}\n{id}\n{platform}\n{version}")?;
        }
        Ok(())
    }
}

#[test]
fn what_is_not_known_yet_is_no_figure() {
    let mut site = busy(0);
    site.node.transfers[0].size = None;
    site.under_way[0].size = None;
    site.under_way[3].size = None;
    let rows = seen(&model_of([site, busy(4)])).transfers;
    assert_eq!(rows.len(), 4);
    let mut site = busy(8);
    site.node.transfers[0].size = None;
    let rows = seen(&model_of([busy(4), site])).transfers;
    let unknown = rows.iter().find(|row| row.name.ends_with("aaaaaaaa")).unwrap();
    assert_eq!((unknown.size, unknown.wanted, unknown.left), (None, None, None));
    assert_eq!(digest(1).len(), 71);
}
