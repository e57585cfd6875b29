//! OpenMetrics as the older text format, for who does not ask for the newer: `promtool`, agents, and people with curl.
//!
//! The two differ in comments alone: a counter's family has its `_total` in the older one, what is only information is a
//! gauge there, and units and the end have no lines.

/// Media type of the older format.
pub(in crate::status) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The same metrics in the older format. The types of all families are known before their help, as `# HELP` comes first.
pub(in crate::status) fn of_open_metrics(text: &str) -> String {
    let type_of = |family: &str| {
        let mut types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        types.find(|(name, _)| *name == family).map_or("untyped", |(_, kind)| kind)
    };
    let named = |family: &str| match type_of(family) {
        "counter" => format!("{family}_total"),
        "info" => format!("{family}_info"),
        _ => family.to_owned(),
    };
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let comment = line.strip_prefix("# ").and_then(|comment| comment.split_once(' '));
        let (kind, family, rest) = match comment.and_then(|(kind, rest)| Some((kind, rest.split_once(' ')?))) {
            Some((kind @ ("HELP" | "TYPE"), (family, rest))) => (kind, family, rest),
            Some(_) => continue,
            None if line.starts_with('#') => continue,
            None => {
                out.push_str(line);
                out.push('\n');
                continue;
            }
        };
        let rest = if kind == "TYPE" && rest == "info" { "gauge" } else { rest };
        out.push_str(&format!("# {kind} {} {rest}\n", named(family)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_the_names_of_their_samples_and_what_is_new_is_left_out() {
        let text = "# HELP a_bytes Bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total{x=\"# y\"} 3\n\
                    # HELP b The program.\n# TYPE b info\nb_info{version=\"1\"} 1\n# HELP c How many.\n# TYPE c gauge\nc 2\n# EOF\n";
        let classic = "# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\na_bytes_total{x=\"# y\"} 3\n\
                       # HELP b_info The program.\n# TYPE b_info gauge\nb_info{version=\"1\"} 1\n# HELP c How many.\n\
                       # TYPE c gauge\nc 2\n";
        assert_eq!(of_open_metrics(text), classic);
    }
}
