//! Registries: whether they answer, are who they should be, and accept the credentials.

use crate::{
    doctor::{Check, Facts, Finding, facts::OriginFacts},
    origin::probe::{ProbeError, Way},
};

pub(in crate::doctor) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    findings.extend(facts.origins.iter().map(finding));
}

fn finding(origin: &OriginFacts) -> Finding {
    let OriginFacts { registry, endpoint, .. } = origin;
    let error = match &origin.outcome {
        Ok(way) => {
            let how = match way {
                Way::Open => "lets everybody in",
                Way::Anonymous => "gives tokens to everybody",
                Way::Credentials => "accepts the credentials",
            };
            return Finding::pass(Check::Origins, format!("{registry} answers at {endpoint} and {how}"));
        }
        Err(error) => error,
    };
    let away = |cause: String, next: String| {
        // Sites without an uplink live on: that is what this is for.
        let what = format!("{registry} is out of reach; what the site holds is served meanwhile");
        Finding::warn(Check::Origins, what, cause, next)
    };
    let wrong = |what: String, cause: &str, next: String| Finding::fail(Check::Origins, what, cause, next);
    match error {
        ProbeError::Dns(cause) => away(
            format!("its name {endpoint} cannot be looked up: {cause}"),
            format!(
                "getent hosts {endpoint}; look at /etc/resolv.conf, and at `registry` and `endpoint` of its [[origin]]"
            ),
        ),
        ProbeError::Connect(cause) => away(
            format!("{endpoint} cannot be connected to: {cause}"),
            format!("curl -v https://{endpoint}/v2/; look at the uplink, proxies and firewalls on the way"),
        ),
        ProbeError::Slow(cause) => away(
            format!("{endpoint} is connected to and does not answer: {cause}"),
            format!("curl -v https://{endpoint}/v2/; a proxy or a firewall may swallow it"),
        ),
        ProbeError::Tls(cause) => wrong(
            format!("{registry} cannot prove who it is"),
            cause,
            "for a CA of your own set `ca_file` of its [[origin]]; a wrong clock has the same effect (see `clock`)"
                .into(),
        ),
        ProbeError::Refused(cause) => wrong(
            format!("{registry} refuses the credentials"),
            cause,
            "look at `username` and `password_file` of its [[origin]], or log in anew: docker login".to_owned()
                + " "
                + registry,
        ),
        ProbeError::NoCredentials => wrong(
            format!("{registry} wants credentials, and there are none"),
            "neither its [[origin]] nor docker's configuration of the node's user has any",
            "set `username` and `password_file` of its [[origin]]".into(),
        ),
        ProbeError::NotARegistry(cause) => wrong(
            format!("what answers at {endpoint} is no registry"),
            cause,
            "look at `endpoint` of its [[origin]]; a captive portal or proxy may answer in its place".into(),
        ),
        ProbeError::Setup(cause) => wrong(
            format!("{registry} cannot be asked as it is configured"),
            cause,
            "correct its [[origin]] in layermesh.toml".into(),
        ),
    }
}
