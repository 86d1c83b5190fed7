//! The command line's own shape.

use clap::CommandFactory;

use super::*;

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("fog").chain(arguments.iter().copied()))
}

fn config(arguments: &[&str]) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap().to_owned();
    let cli = parse(&[arguments, &["--data-dir", &data]].concat()).unwrap();
    Config::resolve(layers(&cli), None, &|_| None).unwrap()
}

#[test]
fn the_commands_fit_together() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_of_every_command_is_as_reviewed() {
    fn all(command: &mut clap::Command, path: &str, text: &mut String) {
        *text += &format!("## {path}\n\n{}\n", command.render_help());
        for sub in command.get_subcommands_mut() {
            let path = format!("{path} {}", sub.get_name());
            all(sub, &path, text);
        }
    }
    let mut text = String::new();
    // The testnet's commands belong to fog-testnet.
    let mut command = Cli::command().mut_subcommand("testnet", |testnet| {
        clap::Command::new("testnet").about(testnet.get_about().cloned().unwrap_or_default())
    });
    all(&mut command, "fog", &mut text);
    insta::assert_snapshot!("help", text);
}

#[test]
fn flags_of_run_reach_the_configuration() {
    let config = config(&[
        "run",
        "--listen",
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/127.0.0.1/tcp/2",
        "--listen",
        "/ip4/127.0.0.1/tcp/3,/ip4/127.0.0.1/tcp/4",
        "--roles",
        "none",
        "--cover",
        "full",
        "--no-mdns",
        "--lan-beacon",
        "true",
        "--api",
        "127.0.0.1:7",
        "--socks",
        "127.0.0.1:8",
        "--metrics",
        "0.0.0.0:9",
        "--send-per-second",
        "2.5",
        "--mix-workers",
        "3",
        "--network",
        "net.json",
        "--seal-keys",
        "--json",
        "--timeout",
        "9",
        "--bootstrap",
        "/ip4/127.0.0.1/tcp/5",
        "--loops-per-second",
        "1",
        "--probe-root",
        "/x",
    ]);
    assert_eq!((config.listen.len(), config.bootstrap.len(), config.mdns), (4, 1, false));
    assert!(config.lan_beacon && config.roles.is_empty() && config.seal_keys && config.json);
    assert_eq!((config.send_per_second, config.mix_workers, config.loops_per_second), (2.5, 3, 1.0));
    assert_eq!((config.api.port(), config.socks.unwrap().port(), config.metrics.unwrap().port()), (7, 8, 9));
    assert_eq!(config.timeout, Some(Duration::from_secs(9)));
    assert_eq!(config.network, Some("net.json".into()));
    assert_eq!(config.probe_root, PathBuf::from("/x"));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for wrong in [
        vec!["run", "--no-such-flag"],
        vec!["no-such-command"],
        vec![],
        vec!["mix", "send", "bob"],
        vec!["mix", "send", "bob", "text", "--file", "x"],
        vec!["network", "create", "f", "--relay", "bob"],
        vec!["connect"],
    ] {
        assert_eq!(parse(&wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
    }
    assert_eq!(parse(&["--help"]).unwrap_err().exit_code(), 0);
    assert_eq!(parse(&["--version"]).unwrap_err().exit_code(), 0);
}
