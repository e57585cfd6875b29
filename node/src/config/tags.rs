//! Rules for tags: `[tags]` for all registries, `[[registry]]` for single ones.

use std::time::Duration;

use layermesh_proto::engine::tags::{TagPolicy, TagRule, TagRules};

use super::{
    layer::{Given, RawRegistry, Setting},
    units::parse_duration,
    validate::{Validator, parse_registry},
};

/// Registries with rules of their own beyond this are a mistake.
const REGISTRIES_MAX: usize = 64;
/// How old what the site knows may be where it goes first, unless told otherwise. 1 h: a release reaches a site that is online
/// within it, and nobody waits for the uplink but once an hour.
const AGE_MAX_DEFAULT: Duration = Duration::from_secs(3600);
/// Longest time in which a tag need not be asked for. A longer one is meant to be `site-first`.
const FRESH_MAX: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    OriginFirst,
    SiteFirst,
    SignedOnly,
}

impl Validator {
    pub(super) fn tag_rules(&mut self) -> TagRules {
        let given = |setting| self.layer.values.get(&setting).cloned();
        let all = [Setting::TagPolicy, Setting::TagFresh, Setting::TagMaxAge].map(given);
        let [policy, fresh, max_age] = &all;
        let other = self.tag_rule([policy.as_ref(), fresh.as_ref(), max_age.as_ref()], None);
        let raw = self.layer.registries.clone();
        if let Some(first) = raw.get(REGISTRIES_MAX) {
            self.error(&first.place, format!("more than {REGISTRIES_MAX} registries"));
        }
        let mut rules = TagRules { other, ..TagRules::default() };
        for registry in &raw {
            let Some(name) = self.registry_name(registry) else { continue };
            let own = [&registry.policy, &registry.fresh, &registry.max_age];
            // What it does not say is as for the others.
            let fresh = own[1].as_ref().or(fresh.as_ref());
            let (policy, max_age) = match own[0] {
                Some(policy) => (Some(policy), own[2].as_ref()),
                None => (policy.as_ref(), own[2].as_ref().or(max_age.as_ref())),
            };
            let rule = self.tag_rule([policy, fresh, max_age], Some(registry));
            if rules.registries.insert(name.clone(), rule).is_some() {
                self.error(&registry.place, format!("a second `[[registry]]` named `{name}`: make them one"));
            }
        }
        rules
    }

    fn registry_name(&mut self, raw: &RawRegistry) -> Option<String> {
        match &raw.name {
            Some(name) => self.parsed(name, parse_registry),
            None => {
                self.error(&raw.place, "a registry needs `name = \"docker.io\"` or another registry's name");
                None
            }
        }
    }

    /// Mistakes in what a registry takes from all are reported there.
    fn tag_rule(&mut self, [policy, fresh, max_age]: [Option<&Given>; 3], of: Option<&RawRegistry>) -> TagRule {
        let default = TagRule::default();
        let own = |given: &&Given| match of {
            None => true,
            Some(raw) => [&raw.policy, &raw.fresh, &raw.max_age].into_iter().flatten().any(|mine| mine == *given),
        };
        let mut read = |given: Option<&Given>, parse: fn(&str) -> Result<Duration, String>| match given {
            Some(given) if own(&given) => self.parsed(given, parse),
            Some(given) => parse(&given.text).ok(),
            None => None,
        };
        let fresh_for = read(fresh, parse_fresh).unwrap_or(default.fresh_for);
        let age_max = read(max_age, parse_duration);
        let kind = match policy {
            Some(given) if own(&given) => self.parsed(given, parse_policy),
            Some(given) => parse_policy(&given.text).ok(),
            None => None,
        };
        if let (Some(given), true) = (max_age.filter(own), kind != Some(Kind::SiteFirst)) {
            self.error(
                &given.place,
                "a maximum age is for `policy = \"site-first\"`: add that, or leave the maximum age out",
            );
        }
        let policy = match kind.unwrap_or(Kind::OriginFirst) {
            Kind::OriginFirst => TagPolicy::OriginFirst,
            Kind::SiteFirst => TagPolicy::SiteFirst { age_max: age_max.unwrap_or(AGE_MAX_DEFAULT) },
            Kind::SignedOnly => TagPolicy::SignedOnly,
        };
        TagRule { policy, fresh_for }
    }
}

fn parse_policy(text: &str) -> Result<Kind, String> {
    match text {
        "origin-first" => Ok(Kind::OriginFirst),
        "site-first" => Ok(Kind::SiteFirst),
        "signed-only" => Ok(Kind::SignedOnly),
        _ => Err(format!("`{text}` is no policy for tags: write `origin-first`, `site-first` or `signed-only`")),
    }
}

fn parse_fresh(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        time if time > FRESH_MAX => Err(format!(
            "`{text}` is longer than an hour: if the site need not ask so often, write `policy = \"site-first\"` and \
             `max_age = \"{text}\"`"
        )),
        time => Ok(time),
    }
}
