use super::*;

/// Puts each mistake into the good scenario; it is the only one found, and its message begins so.
fn check(cases: &[(&str, &str, &str)]) {
    assert_eq!(mistakes(GOOD), [""; 0]);
    for (right, wrong, message) in cases {
        assert!(GOOD.contains(right), "{right}");
        let found = mistakes(&GOOD.replacen(right, wrong, 1));
        assert!(
            found.len() == 1 && found[0].starts_with(message),
            "`{wrong}`\n   expected: {message}\n   found: {found:#?}"
        );
    }
}

#[test]
fn unknown_keys_have_the_nearest_or_their_place() {
    check(&[
        ("limit =", "limitt =", "2:1: unknown key `limitt`; did you mean `limit`?"),
        ("copies =", "copys =", "5:1: unknown key `bounds.copys`; did you mean `copies`?"),
        ("latency =", "latencies =", "9:28: unknown key `site.uplink.latencies`; did you mean `latency`?"),
        (
            "count = 4",
            "platform = \"x\"",
            "8:1: unknown key `site.platform`; `platform` belongs under `[[site.devices]]` or",
        ),
        ("share = 0.5", "lasts = \"1m\"", "33:1: unknown key `release.lasts`; `lasts` belongs under `[[fault]]`"),
        ("count = 4", "limit = \"1h\"", "8:1: unknown key `site.limit`; `limit` belongs above the first table"),
        ("copies = 1.05", "weather = 1", "5:1: unknown key `bounds.weather`; there are copies, last"),
    ]);
}

#[test]
fn wrong_types_say_what_is_right() {
    check(&[
        ("\"12h\"", "12", "2:9: `limit` is a duration such as `\"90s\"` or `\"1h30m\"`; this is an integer"),
        (
            "count = 4",
            "count = \"4\"",
            "8:9: `count` is a whole number from 1 to 100000, without quotes; this is a string",
        ),
        (
            "count = 4",
            "count = 4.0",
            "8:9: `count` is a whole number from 1 to 100000, without quotes; this is a float",
        ),
        (
            "uplink = \"8mbit\"",
            "uplink = 8",
            "21:10: `uplink` is a rate such as `\"2mbit\"`, or a table `[site.uplink]`; this is an integer",
        ),
        ("[bounds]\ncopies = 1.05", "bounds = 1\n", "4:10: `bounds` is a table: write `[bounds]`; this is an integer"),
        (
            "share = 0.5",
            "background = \"yes\"",
            "33:14: `background` is `true` or `false`, without quotes; this is a string",
        ),
        ("share = 0.5", "share = true", "33:9: `share` is a share such as `0.1` or `\"10%\"`; this is a boolean"),
        (
            "devices = 1",
            "devices = \"1\"",
            "22:11: `devices` is a whole number from 1 to 2000, without quotes; this is a string",
        ),
        ("[[fault]]", "[fault]", "34:1: `fault` is a list of tables: write `[[fault]]` above each; this is a table"),
        (
            "[\"shop\"]",
            "[1]",
            "32:10: `sites` is a kind of sites such as `\"shop\"`, or a list of them; this is an integer",
        ),
        (
            "app-1 = \"3MB\"",
            "app-1 = 3",
            "25:35: `app-1` is the size of a layer such as `\"60MB\"`; this is an integer",
        ),
        (
            "\"Shops and a depot.\"",
            "1979-05-27",
            "1:9: `about` is a sentence or two, in quotes; this is a date or time",
        ),
    ]);
}

#[test]
fn wrong_units_have_examples() {
    check(&[
        ("\"2mbit\"", "\"2Mb\"", "9:19: `rate`: `2Mb` is not a rate: write bits as `2mbit`, `512kbit`"),
        ("\"2mbit\"", "\"2MB\"", "9:19: `rate`: `2MB` is not a rate"),
        ("\"2mbit\"", "\"0mbit\"", "9:19: `rate`: `0mbit` is nothing at all: write more than zero"),
        ("\"8mbit\"", "\"8tbit\"", "21:10: `uplink`: `8tbit` is not a rate"),
        ("\"30MB\"", "\"30mbit\"", "28:8: `size`: `30mbit` is not a size: write a number and a unit, such as `300MB`"),
        ("\"30MB\"", "\"30\"", "28:8: `size`: `30` is not a size"),
        ("\"30MB\"", "\"65GiB\"", "28:8: `size`: `65GiB` is too large: at most 64GiB is possible"),
        ("\"3MB\"", "\"0MB\"", "25:35: `app-1`: `0MB` is nothing at all"),
        (
            "\"1h\"\nsites",
            "\"1 hour\"\nsites",
            "31:6: `at`: `1 hour` is not a duration: write numbers and units from `y d h m",
        ),
        (
            "\"01:00-05:00\"",
            "\"1-5\"",
            "9:52: `up`: `1-5` is not a time of day: write from when to when, such as `01:00-05:00`",
        ),
        ("\"01:00-05:00\"", "\"01:00-01:00\"", "9:52: `up`: `01:00-01:00` ends when it begins: leave it out"),
        ("\"Mon 22:00\"", "\"22:00\"", "3:9: `start`: `22:00` is not a time of the week: write a day from Mon to Sun"),
        ("share = 0.5", "share = 1.5", "33:9: `share`: `1.5` is not a share: write a number from 0 to 1 such as `0.1`"),
        ("share = 0.5", "share = -0.5", "33:9: `share`: `-0.5` is not a share"),
        ("loss = 0.01", "loss = \"101%\"", "10:32: `loss`: `101%` is not a share"),
        ("loss = 0.01", "loss = nan", "10:32: `loss`: `nan` is not a share"),
    ]);
}

#[test]
fn numbers_outside_their_range_have_it() {
    check(&[
        ("count = 4", "count = 0", "8:9: `count` is a whole number from 1 to 100000; 0 is not"),
        ("count = 5", "count = -5", "13:9: `count` is a whole number from 1 to 2000; -5 is not"),
        ("devices = 1", "devices = 2001", "22:11: `devices` is a whole number from 1 to 2000; 2001 is not"),
        ("copies = 1.05", "copies = -0.9", "5:10: `copies` is a number above 0, such as `1.05`; `-0.9` is not"),
        ("share = 0.5", "share = 0", "33:9: `share` is a share above 0 and up to 1; 0 is not"),
        ("\"12h\"", "\"0s\"", "2:9: `limit` is a duration of up to 60d; no time at all is not"),
        ("\"12h\"", "\"61d\"", "2:9: `limit` is a duration of up to 60d; 61d is not"),
        ("\"20ms\"", "\"2m\"", "9:38: `latency` is a duration of up to 1m; 2m is not"),
        (
            "count = 5",
            "count = 2000",
            "6:1: 2001 devices at one site, and at most 2000 are possible: divide them among more",
        ),
        ("count = 4", "count = 99999", "6:1: 599995 devices, and at most 100000 are possible: lower the `count`"),
        ("clock_skew = \"1h\"", "clock_skew = \"101y\"", "18:14: `clock_skew`: `101y` is too large: at most 36500d"),
    ]);
    let layer = |number| format!("l{number} = \"1MB\"");
    let layers: Vec<_> = (0..=BLOBS_MAX).map(layer).collect();
    let many = GOOD.replace("size = \"30MB\"", &format!("layers = {{ {} }}", layers.join(", ")));
    assert_eq!(mistakes(&many), ["23:1: 1003 layers, and at most 1000 are possible: simulate fewer images at a time"]);
}

#[test]
fn names_of_nothing_have_the_nearest() {
    check(&[
        ("image = \"shop:1\"", "image = \"shop:3\"", "30:9: there is no image `shop:3`; did you mean `shop:1`?"),
        ("image = \"shop:1\"", "image = \"lab:9\"", "30:9: there is no image `lab:9`; there are `shop:1`, `shop:2`"),
        ("[\"shop\"]", "[\"shpo\"]", "32:10: there is no site `shpo`; did you mean `shop`?"),
        (
            "devices = \"till\"",
            "devices = \"tills\"",
            "39:11: there is no group of devices `tills`; did you mean `till`?",
        ),
        (
            "[\"till\", \"screen\"]",
            "\"device\"",
            "14:9: there is no group of devices at this site `device`; there are `screen`, `till`",
        ),
        ("\"crash\"", "\"crsah\"", "35:8: there is no fault `crsah`; did you mean `crash`?"),
        ("\"crash\"", "\"fire\"", "35:8: there is no fault `fire`; there are `uplink-cut`, `uplink-silent`"),
        (
            "sites = \"shop\"",
            "sites = \"depot\"",
            "39:11: this fault changes nothing or makes no sense here: none of its sites has devices `till`: name other",
        ),
        ("sites = [\"shop\"]", "devices = \"screen\"\nsites = \"depot\"", "32:11: this release changes nothing"),
    ]);
}

#[test]
fn names_have_a_form_and_stand_for_one_thing() {
    check(&[
        ("name = \"depot\"", "name = \"the depot\"", "20:8: `the depot` cannot name this site: write up to 64 letters"),
        (
            "name = \"depot\"",
            "name = \"shop\"",
            "20:8: a second site `shop`; the first is in line 7: give one of them another name",
        ),
        (
            "finds = [\"till\", \"screen\"]\n[[site.devices]]\nname = \"screen\"",
            "[[site.devices]]\nname = \"till\"",
            "15:8: a second group of devices `till`; the first is in line 12",
        ),
        ("name = \"shop:2\"", "name = \"shop:1\"", "27:8: a second image `shop:1`; the first is in line 24"),
        (
            "name = \"shop:2\"",
            "name = \"shop\"",
            "27:8: `shop` cannot name this image: it has no tag: write one such as `shop:1`",
        ),
        (
            "name = \"shop:2\"",
            "name = \"Shop:2\"",
            "27:8: `Shop:2` cannot name this image: `Shop` is not a repository name",
        ),
        ("linux/arm64", "arm64", "17:12: `arm64` cannot name this platform: write one such as `linux/arm64`"),
        ("app-1 =", "\"app 1\" =", "25:27: `app 1` cannot name this layer: write a word such as `base`"),
        (
            "size = \"30MB\"",
            "layers = { base = \"61MB\" }",
            "28:12: layer `base` has 61MB here and 60MB in line 25: one name is one blob; give the changed one another name, such as `base-2`",
        ),
        ("count = 4", "name = \"x\"", "8:1: this is not TOML: this key or table is there a second time"),
    ]);
}

#[test]
fn what_is_missing_is_asked_for() {
    check(&[
        (
            "name = \"shop:2\"\n",
            "",
            "26:1: `name` of an image is missing: write one with a tag, such as `name = \"shop:1\"`",
        ),
        (
            "size = \"30MB\"",
            "",
            "26:1: what the image consists of is missing: write `size = \"300MB\"`, or `layers = {",
        ),
        ("{ base = \"60MB\", app-1 = \"3MB\" }", "{}", "25:10: a layer is missing: write `size"),
        ("uplink = \"8mbit\"", "", "19:1: `uplink` is missing: write the site's rate, such as `uplink = \"2mbit\"`"),
        ("rate = \"2mbit\", ", "", "9:10: `rate` of an uplink is missing"),
        ("devices = 1", "", "19:1: `devices` is missing: write how many, such as `devices = 25`"),
        ("devices = 1", "devices = []", "22:11: `devices` is missing"),
        ("image = \"shop:1\"\n", "", "29:1: `image` of a release is missing: name the image that devices are to get"),
        (
            "kind = \"crash\"\n",
            "",
            "34:1: `kind` of a fault is missing: say what goes wrong, such as `kind = \"crash\"`",
        ),
        (
            "kind = \"crash\"\nat = \"2h\"\nlasts = \"10m\"",
            "kind = \"reboot\"",
            "35:8: fault `reboot` changes nothing or makes no sense here: a reboot ends",
        ),
    ]);
    assert_eq!(
        mistakes(""),
        [
            "1:1: a site is missing: write `[[site]]`, and under it an `uplink` and `devices`",
            "1:1: an image is missing: write `[[image]]` with a `name` such as \"shop:1\" and a `size` such as \"300MB\"",
            "1:1: a release is missing: write `[[release]]` with the `image` that devices are to get",
        ]
    );
}

#[test]
fn nothing_happens_after_the_limit() {
    check(&[
        (
            "\"2h\"",
            "\"12h\"",
            "36:6: this begins 12h after the start, and the scenario ends at its limit of 12h: lower `at` or",
        ),
        ("at = \"1h\"\nsites", "at = \"1d1h\"\nsites", "31:6: this begins 1d1h after the start"),
        ("share = 0.5", "spread = \"11h1s\"", "33:10: the last of it begins up to 12h1s after the start, and"),
        (
            "\"10m\"",
            "\"10h1m\"",
            "37:9: this ends up to 12h1m after the start, and the scenario ends at its limit of 12h: leave out `lasts`",
        ),
    ]);
}

#[test]
fn faults_that_change_nothing_are_refused() {
    let fault = |lines: &str| {
        let (before, _) = GOOD.split_once("[[fault]]").unwrap();
        mistakes(&format!("{before}[[fault]]\n{lines}"))
    };
    let one = [
        (
            "kind = \"uplink-cut\"\ndevices = \"till\"",
            "36:11: fault `uplink-cut` changes nothing or makes no sense here: it befalls whole sites: leave out `devices`",
        ),
        (
            "kind = \"unranged\"\nshare = \"50%\"",
            "36:9: fault `unranged` changes nothing or makes no sense here: it befalls whole sites: leave out `share`",
        ),
        (
            "kind = \"partition\"",
            "35:8: fault `partition` changes nothing or makes no sense here: it befalls all devices of its sites",
        ),
        ("kind = \"partition\"\nsites = \"depot\"\nshare = 0.5", "35:8: fault `partition`"),
        ("kind = \"partition\"\ndevices = [\"screen\", \"till\", \"device\"]", "35:8: fault `partition`"),
        (
            "kind = \"crash\"",
            "35:8: fault `crash` changes nothing or makes no sense here: no device is left: write how long it `lasts`",
        ),
        (
            "kind = \"lies\"\nsites = \"depot\"",
            "35:8: fault `lies` changes nothing or makes no sense here: a device that is alone",
        ),
        (
            "kind = \"slow-disk\"\nlasts = \"0s\"",
            "36:9: fault `slow-disk` changes nothing or makes no sense here: it lasts no time at all",
        ),
    ];
    for (lines, message) in one {
        let found = fault(lines);
        assert!(
            found.len() == 1 && found[0].starts_with(message),
            "{lines}\n   expected: {message}\n   found: {found:#?}"
        );
    }
    for lines in [
        "kind = \"partition\"\ndevices = \"till\"",
        "kind = \"crash\"\nsites = \"shop\"",
        "kind = \"lies\"",
        "kind = \"unranged\"\nsite_share = 0.5",
    ] {
        assert_eq!(fault(lines), [""; 0], "{lines}");
    }
    let unranged = GOOD.replace("latency = \"20ms\"", "ranges = false").replace("\"crash\"", "\"unranged\"");
    let found = mistakes(&unranged.replace("devices = \"till\"\n", ""));
    assert!(found.len() == 1 && found[0].contains("answers no ranges anyway"), "{found:#?}");
}

#[test]
fn an_image_has_something_for_each_device_that_gets_it() {
    let only = |platform: &str, release: &str| {
        let image = format!("[image.platform.\"{platform}\"]\nsize = \"30MB\"");
        let text = GOOD.replace("layers = { base = \"60MB\", app-1 = \"3MB\" }", &image);
        mistakes(&text.replace("sites = [\"shop\"]", release))
    };
    let message = "31:9: image `shop:1` has nothing for `linux/arm64`, the platform of devices `screen` at `shop`: add \
                   `[image.platform.\"linux/arm64\"]`, or leave these devices out of the release with `devices` or `sites`";
    assert_eq!(only("linux/amd64", ""), [message]);
    assert_eq!(only("linux/amd64", "devices = \"till\""), [""; 0]);
    assert_eq!(only("linux/arm64", "devices = \"screen\""), [""; 0]);
    assert_eq!(only("linux/amd64", "sites = \"depot\""), [""; 0]);

    let both = GOOD.replace("size = \"30MB\"", "size = \"30MB\"\nlayers = { x = \"1MB\" }");
    assert_eq!(mistakes(&both), ["28:8: `size` and `layers` exclude each other: `layers` say their sizes themselves"]);
    let both = GOOD.replace("size = \"30MB\"", "size = \"30MB\"\n[image.platform.\"a/b\"]\nsize = \"1MB\"");
    assert!(mistakes(&both)[0].starts_with("28:8: `size` and `platform` exclude each other"), "{:?}", mistakes(&both));
    let none = GOOD.replace("size = \"30MB\"", "platform = \"linux/arm64\"");
    assert!(mistakes(&none)[0].starts_with("28:12: `platform` is tables by platform: write"), "{:?}", mistakes(&none));
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_text() {
    let text = GOOD
        .replace("\"12h\"", "12")
        .replace("count = 4", "count = 0")
        .replace("\"8mbit\"", "\"8\"")
        .replace("app-1 = \"3MB\"", "app-1 = \"three\"")
        .replace("at = \"2h\"", "when = \"2h\"")
        .replace("devices = \"till\"", "devices = \"tlil\"");
    let lines: Vec<_> = mistakes(&text).iter().map(|error| error.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(lines, ["2", "8", "21", "25", "36", "39"]);
    let errors = Scenario::parse("night", &text).unwrap_err().to_string();
    assert!(errors.starts_with("the scenario has 6 mistakes\n  night:2:9: `limit`"), "{errors}");
}

#[test]
fn text_that_is_no_toml_does_not_lead_to_mistakes_that_follow_from_it() {
    let found = mistakes(&GOOD.replace("count = 4", "count = ").replace("\"30MB\"", "\"30\""));
    assert!(found[0].starts_with("8:"), "{found:#?}");
    assert!(found[0].contains("this is not TOML"), "{found:#?}");
    assert!(found.iter().skip(1).all(|error| error.starts_with("28:8: `size`: `30` is not a size")), "{found:#?}");
    let found = mistakes("[[site]\nname = \"x\"\n");
    assert!(found.iter().all(|error| error.contains("this is not TOML")) && !found.is_empty(), "{found:#?}");
    // A column counts characters, not bytes.
    assert!(mistakes("about = \"ö\"; seed = 1")[0].starts_with("1:12: "));
}

#[test]
fn a_misspelled_key_is_one_mistake_and_not_a_missing_one_as_well() {
    check(&[
        ("[[release]]", "[[releases]]", "29:3: unknown key `releases`; did you mean `release`?"),
        ("uplink = \"8mbit\"", "uplnk = \"8mbit\"", "21:1: unknown key `site.uplnk`; did you mean `uplink`?"),
        ("rate = \"2mbit\"", "rat = \"2mbit\"", "9:12: unknown key `site.uplink.rat`; did you mean `rate`?"),
        ("devices = 1", "device = 1", "22:1: unknown key `site.device`; did you mean `devices`?"),
        ("size = \"30MB\"", "sice = \"30MB\"", "28:1: unknown key `image.sice`; did you mean `size`?"),
        ("kind =", "kinds =", "35:1: unknown key `fault.kinds`; did you mean `kind`?"),
        ("loss = 0.01", "shared = true", "10:25: unknown key `site.lan.shared`; did you mean `shared_radio`?"),
        ("image = \"shop:1\"", "image = \"shop\"", "30:9: there is no image `shop`; did you mean `shop:1`?"),
    ]);
}
