//! A node's fleet, over restarts and clocks.

use std::time::Duration;

use libp2p::identity::Keypair;

use super::{
    testing::{Authority, NOW, TestClock, enrolment_key, loaded, member},
    *,
};

fn node() -> (Keypair, NodeId) {
    let keypair = Keypair::generate_ed25519();
    let id = record::public(&keypair).unwrap();
    (keypair, id)
}

fn options(authority: &Authority) -> FleetOptions {
    FleetOptions { authorities: vec![authority.id()], ..FleetOptions::default() }
}

#[tokio::test]
async fn revocations_and_the_newest_time_outlive_the_node() {
    let (authority, dir, clock) = (Authority::new(), tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let ((keypair, _), (_, other), (_, third)) = (node(), node(), node());
    let fleet = loaded(&keypair, options(&authority), dir.path(), &clock);
    let credential = record::to_bytes(&authority.admit(other, None)).unwrap();
    fleet.admit(other, &credential).unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(fleet.clone().run(stop.clone()));
    assert_eq!(fleet.revoke(&authority.revoke(other), None), Ok(true));
    assert_eq!(fleet.admits(&other), Err(Refusal::Revoked));
    stop.cancel();
    task.await.unwrap();

    // Without a clock, after a restart: what was signed is known all the same.
    clock.set(0);
    let fleet = loaded(&keypair, options(&authority), dir.path(), &clock);
    assert_eq!(fleet.admit(other, &credential), Err(Refusal::Revoked));
    let expired = record::to_bytes(&authority.admit(third, Some(NOW - 1))).unwrap();
    assert_eq!(fleet.admit(third, &expired), Err(Refusal::Expired));
    let refused = fleet.status().refused;
    assert_eq!((refused["revoked"], refused["expired"], refused["forged"]), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_expires_is_out_within_seconds() {
    let (authority, clock) = (Authority::new(), TestClock::at(NOW));
    let ((keypair, _), (_, other)) = (node(), node());
    let fleet = member(&keypair, &[&authority], None, &clock);
    fleet.admit(other, &record::to_bytes(&authority.admit(other, Some(NOW + 100))).unwrap()).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(fleet.clone().run(stop.clone()));
    let out = tokio::spawn({
        let fleet = fleet.clone();
        async move { fleet.until_out(other).await }
    });
    tokio::time::sleep(10 * LOOK_INTERVAL).await;
    assert!(!out.is_finished());
    clock.set(NOW + 100);
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), out).await.unwrap().unwrap(), Refusal::Expired);
    stop.cancel();
}

#[test]
fn a_device_admits_itself_once_with_an_enrolment_key() {
    let (authority, dir, clock) = (Authority::new(), tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let (keypair, id) = node();
    let path = dir.path().join("enrolment.pem");
    let key = enrolment_key(&authority, &path, NOW + 1000);
    let options = FleetOptions { enrolment_key: Some(path.clone()), ..options(&authority) };
    let fleet = loaded(&keypair, options.clone(), dir.path(), &clock);
    let membership = fleet.status().membership.unwrap();
    assert_eq!(membership.enrolled_by, Some(key.to_string()));
    assert_eq!(fleet.status().problem, None);
    let shown = fleet.credential();

    // The key may go after the first boot.
    std::fs::remove_file(&path).unwrap();
    let fleet = loaded(&keypair, options.clone(), dir.path(), &clock);
    assert_eq!(fleet.credential(), shown);
    let (other, _) = node();
    assert_eq!(member(&other, &[&authority], None, &clock).admit(id, &shown), Ok(()));

    // When both have expired it says so, and what it shows stays what it was: its clock may be wrong.
    clock.set(NOW + 1000);
    let fleet = loaded(&keypair, options, dir.path(), &clock);
    assert!(fleet.status().problem.unwrap().contains("expired"));
    assert_eq!(fleet.credential(), shown);
}

#[test]
fn what_is_wrong_with_the_own_membership_is_said_and_mended_by_joining() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let ((keypair, id), (_, other)) = (node(), node());
    let fleet = loaded(&keypair, options(&authority), dir.path(), &clock);
    assert!(fleet.credential().is_empty());
    assert!(fleet.status().problem.unwrap().contains(&format!("fleet admit {id}")));
    let join = |credential| fleet.join(&files::show_credential(&credential));
    for (credential, why) in [
        (stranger.admit(id, None), Refusal::AnotherFleet),
        (authority.admit(other, None), Refusal::AnotherPeer),
        (authority.admit(id, Some(NOW)), Refusal::Expired),
    ] {
        match join(credential) {
            Err(own::JoinError::Refused { refusal, .. }) => assert_eq!(refusal, why),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(fleet.join("junk"), Err(own::JoinError::NotOne)));
    assert!(fleet.credential().is_empty());
    join(authority.admit(id, None)).unwrap();
    assert_eq!((fleet.status().problem, fleet.credential().is_empty()), (None, false));
    let again = loaded(&keypair, options(&authority), dir.path(), &clock);
    assert_eq!(again.credential(), fleet.credential());
}

#[test]
fn damaged_revocations_are_no_reason_to_let_everybody_in() {
    let (authority, dir, clock) = (Authority::new(), tempfile::tempdir().unwrap(), TestClock::at(NOW));
    let (keypair, _) = node();
    files::write_state(&dir.path().join(files::FLEET_DIR), &[vec![1]], 0).unwrap();
    std::fs::write(dir.path().join("fleet/revocations.pem"), "junk").unwrap();
    assert!(Fleet::load_with_clock(&keypair, options(&authority), dir.path(), clock.wall()).is_err());
}

#[test]
fn an_open_fleet_lets_everybody_in_and_one_without_a_fleet_is_alone() {
    let ((keypair, _), (_, other)) = (node(), node());
    let open = Fleet::open();
    assert_eq!((open.admit(other, &[]), open.admits(&other)), (Ok(()), Ok(())));
    assert_eq!(open.status().mode, AdmissionMode::Open);
    let dir = tempfile::tempdir().unwrap();
    let alone = loaded(&keypair, FleetOptions::default(), dir.path(), &TestClock::at(NOW));
    assert!(alone.is_alone() && alone.status().problem.is_some());
    assert_eq!(alone.admit(other, &[]), Err(Refusal::NoMembership));
}
