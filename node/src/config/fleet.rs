//! Who is let in, as it is configured.

use layermesh_proto::NodeId;

use super::{
    layer::{Given, Setting},
    validate::{Validator, parse_bool},
};
use crate::fleet::{FleetOptions, roster::AUTHORITIES_MAX};

impl Validator {
    pub(super) fn admission(&mut self) -> FleetOptions {
        let open = self.value(Setting::Open, parse_bool).unwrap_or(false);
        let given = self.layer.authorities.clone().unwrap_or_default();
        if let Some(first) = given.get(AUTHORITIES_MAX) {
            self.error(
                &first.place,
                format!("more than {AUTHORITIES_MAX} authorities; an old and a new one are enough to change keys"),
            );
        }
        let mut authorities: Vec<NodeId> = Vec::new();
        for authority in &given {
            match self.parsed(authority, parse_authority) {
                Some(id) if !authorities.contains(&id) => authorities.push(id),
                _ => {}
            }
        }
        let membership = self.layer.values.get(&Setting::Membership).map(Given::path);
        let enrolment_key = self.layer.values.get(&Setting::EnrolmentKey).map(Given::path);
        if let (true, Some(first)) = (open, given.first()) {
            self.error(
                &first.place,
                "`open` lets everybody in, so authorities have no say: leave out one of the two".to_owned(),
            );
        }
        for setting in [Setting::Membership, Setting::EnrolmentKey] {
            let stray = self.layer.values.get(&setting).filter(|_| given.is_empty()).map(|given| given.place.clone());
            if let Some(place) = stray {
                self.error(&place, "needs the fleet's authority beside it: `authorities = [\"12D3KooW...\"]`");
            }
        }
        FleetOptions { open, authorities, membership, enrolment_key }
    }
}

fn parse_authority(text: &str) -> Result<NodeId, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is not an authority's id: write the one that `layermesh fleet init` printed, 12D3KooW...")
    })
}
