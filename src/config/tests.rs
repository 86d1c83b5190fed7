//! Precedence, and errors that name what is wrong and what would be right.

use super::*;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn resolve(flags: &[(Key, &str)], variables: &[(&str, &str)], file: Option<&Path>) -> Result<Config, ConfigError> {
    let mut layers = Layers::default();
    for (key, value) in flags {
        layers.flag(*key, [(*value).to_owned()]);
    }
    let environment = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    Config::resolve(layers, file, &environment)
}

fn with_file(text: &str) -> Result<Config, ConfigError> {
    let dir = dir();
    let file = dir.path().join("some.toml");
    fs::write(&file, text).unwrap();
    resolve(&[(key::DATA_DIR, dir.path().to_str().unwrap())], &[], Some(&file))
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let dir = dir();
    let data = dir.path().to_str().unwrap();
    fs::write(dir.path().join(FILE_NAME), "send_per_second = 1\nroles = \"mix\"\ncover = \"full\"\n").unwrap();
    let variables = [("FOG_SEND_PER_SECOND", "2"), ("FOG_ROLES", "mix,exit"), ("FOG_DATA_DIR", data)];
    let config = resolve(&[(key::SEND_PER_SECOND, "3")], &variables, None).unwrap();
    assert_eq!(config.send_per_second, 3.0);
    assert_eq!(config.roles.to_string(), "mix,exit");
    assert_eq!(config.cover, Cover::Full);
    assert_eq!(config.config_file, Some(dir.path().join(FILE_NAME)));
}

#[test]
fn defaults_are_those_of_the_interface() {
    let dir = dir();
    let config = resolve(&[(key::DATA_DIR, dir.path().to_str().unwrap())], &[], None).unwrap();
    assert_eq!(config.roles.to_string(), "mix,guard,mailbox,directory,worker");
    assert_eq!(config.api.to_string(), "127.0.0.1:0");
    assert_eq!((config.socks, config.network.clone(), config.timeout), (None, None, None));
    assert_eq!((config.send_per_second, config.cover, config.loops_per_second), (50.0, Cover::Loops, 0.2));
    assert_eq!(config.listen.len(), 4);
    assert!(
        config.mdns
            && config.lan_beacon
            && !config.json
            && !config.faults.any()
            && config.read_network().unwrap().is_lan()
    );
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_the_key_that_was_meant() {
    for (text, key, meant) in [
        ("send_per_secnd = 1", "send_per_secnd", Some("send_per_second")),
        ("[limits]\nconections = 1", "limits.conections", Some("limits.connections")),
        ("[unknown]\nx = 1", "unknown", None),
        ("zzz = 1", "zzz", None),
    ] {
        let error = with_file(text).unwrap_err();
        let ConfigError::UnknownKey { key: found, file, meant: guess } = &error else { panic!("{error}") };
        assert_eq!((found.as_str(), *guess), (key, meant));
        assert!(file.ends_with("some.toml") && error.to_string().contains("some.toml"));
    }
}

#[test]
fn a_bad_value_names_its_place_and_what_is_accepted() {
    let dir = dir();
    let data = (key::DATA_DIR, dir.path().to_str().unwrap());
    let error = resolve(&[data, (key::COVER, "some")], &[], None).unwrap_err();
    assert_eq!(
        (error.to_string(), error.hint()),
        ("--cover: `some` cannot be used".into(), "it takes none, loops or full".into())
    );
    let error = resolve(&[data], &[("FOG_TIMEOUT", "soon")], None).unwrap_err();
    assert_eq!(error.to_string(), "FOG_TIMEOUT: `soon` cannot be used");
    let error = with_file("[limits]\nconnections = \"many\"").unwrap_err();
    assert!(error.to_string().starts_with("`limits.connections` in `"), "{error}");
    for text in [
        "api = \"0.0.0.0:1\"",
        "api = \"x\"",
        "roles = \"mixer\"",
        "roles = [\"mix\", \"none\"]",
        "send_per_second = 0",
        "send_per_second = nan",
        "timeout = 1.5",
        "no_mdns = \"maybe\"",
        "lan_beacon = 2",
        "listen = \"127.0.0.1:1\"",
        "listen = [[1]]",
        "log_level = \"fog=loud\"",
        "limits = 3",
        "[faults]\nloss = 1.1",
        "[limits]\nconnections = 0",
        "[worker]\nnice = 20",
        "[worker]\nnice = -1",
        "[faults]\nresults = \"copied\"",
        "this is no toml",
    ] {
        assert!(with_file(text).is_err(), "{text}");
    }
}

#[test]
fn lists_come_as_lists_or_with_commas() {
    let config =
        with_file("listen = [\"/ip4/127.0.0.1/tcp/1\", \"/ip4/127.0.0.1/tcp/2\"]\nroles = [\"mix\", \"exit\"]")
            .unwrap();
    assert_eq!((config.listen.len(), config.roles.to_string()), (2, "mix,exit".into()));
    let dir = dir();
    let variables = [("FOG_LISTEN", "/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/tcp/2"), ("FOG_NO_MDNS", "true")];
    let config = resolve(&[(key::DATA_DIR, dir.path().to_str().unwrap())], &variables, None).unwrap();
    assert_eq!((config.listen.len(), config.mdns), (2, false));
}

#[test]
fn the_beacon_follows_mdns_unless_it_is_named() {
    for (text, mdns, beacon) in [
        ("", true, true),
        ("no_mdns = true", false, false),
        ("no_mdns = true\nlan_beacon = true", false, true),
        ("lan_beacon = false", true, false),
    ] {
        let config = with_file(text).unwrap();
        assert_eq!((config.mdns, config.lan_beacon), (mdns, beacon), "{text}");
    }
}

#[test]
fn paths_in_a_file_are_relative_to_it() {
    let dir = dir();
    let file = dir.path().join("fog.toml");
    fs::write(&file, "data_dir = \"data\"\nnetwork = \"net.json\"").unwrap();
    let config = resolve(&[], &[], Some(&file)).unwrap();
    assert_eq!(config.data_dir, dir.path().join("data"));
    assert_eq!(config.network, Some(dir.path().join("net.json")));
    let error = config.read_network().unwrap_err();
    assert!(error.to_string().contains("net.json") && error.to_string().contains("no such file"), "{error}");
}

#[test]
fn a_data_dir_key_in_a_file_that_was_found_yields_to_the_variable_that_led_to_it() {
    let dir = dir();
    fs::write(dir.path().join(FILE_NAME), "data_dir = \"/elsewhere\"").unwrap();
    let outcome = resolve(&[], &[("FOG_DATA_DIR", dir.path().to_str().unwrap())], None);
    // The variable wins, so the file's key has no effect: nothing to complain about.
    assert_eq!(outcome.unwrap().data_dir, dir.path());
}

#[test]
fn faults_are_refused_in_lan_mode_alone() {
    let config = with_file(
        "[faults]\nloss = 0.1\ndelay_ms = 20\nreorder = 0.5\nrecord = true\ncircuits = 0.25\nresults = \"colluding\"",
    )
    .unwrap();
    let results = Results::Colluding;
    let expected =
        Faults { loss: 0.1, delay: Duration::from_millis(20), reorder: 0.5, record: true, circuits: 0.25, results };
    assert_eq!(config.faults, expected);
    assert!(config.check_faults(&Network::lan()).is_err());
    let own = Network { id: fog_base::NetworkId([1; 32]), ..Network::lan() };
    config.check_faults(&own).unwrap();
}

#[test]
fn the_example_file_shows_every_key_and_the_defaults() {
    let example = include_str!("../../fog.example.toml");
    let plain = Config { config_file: None, ..with_file(example).unwrap() };
    let dir = dir();
    let default = resolve(&[(key::DATA_DIR, dir.path().to_str().unwrap())], &[], None).unwrap();
    assert_eq!(
        Config { data_dir: dir.path().to_owned(), ..plain },
        default,
        "what is not commented out is the default"
    );
    // With the comment signs of the examples removed, every key is there and every value is one that it takes.
    let all: String = example.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
    with_file(&all).unwrap();
    for key in KEYS {
        let name = key.name.rsplit('.').next().unwrap();
        assert!(all.lines().any(|line| line.starts_with(&format!("{name} = "))), "{name} is missing");
    }
}

#[test]
fn a_misspelt_variable_is_noticed() {
    let names = ["FOG_ROLES", "FOG_ROLE", "FOG_CONFIG", "FOG_PASSPHRASE_FILE", "PATH", "FOG_LIMITS.CONNECTIONS"];
    let unknown = unknown_variables(names.into_iter().map(str::to_owned));
    assert_eq!(unknown, ["FOG_ROLE", "FOG_LIMITS.CONNECTIONS"]);
}
