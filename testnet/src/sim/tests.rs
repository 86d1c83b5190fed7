use super::*;

fn options(scenarios: &[&str]) -> Options {
    Options { scenarios: scenarios.iter().map(|name| (*name).to_owned()).collect(), ..Options::default() }
}

fn report(options: &Options) -> Report {
    run(options, &mut |_| {}).unwrap()
}

fn json(options: &Options) -> String {
    serde_json::to_string_pretty(&report(options)).unwrap()
}

#[test]
fn one_seed_gives_one_report_and_another_gives_another() {
    let small =
        Options { peers: 300, epochs: Some(20), keys: 1_000, shares: vec![0.2], quick: true, ..options(&["all"]) };
    let one = json(&small);
    assert_eq!(one, json(&small));
    let few = |seed| json(&Options { seed, scenarios: vec!["seats".into(), "churn".into()], ..small.clone() });
    let (one, other) = (few(1), few(2));
    assert_ne!(one.replace("\"seed\": 1", "\"seed\": 2"), other);
}

#[test]
fn a_scenario_gives_the_same_figures_alone_and_after_another() {
    let small = |names: &[&str]| Options { peers: 300, keys: 1_000, quick: true, ..options(names) };
    let (both, alone) = (report(&small(&["seats", "ground-keys"])), report(&small(&["ground-keys"])));
    let last = |report: &Report| serde_json::to_value(report.report.checks.last().unwrap()).unwrap();
    assert_eq!(last(&both), last(&alone));
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    let good = options(&["seats"]);
    for (bad, says) in [
        (Options { peers: 5, ..good.clone() }, "peers"),
        (Options { shares: vec![0.6], ..good.clone() }, "share"),
        (Options { shares: vec![f64::NAN], ..good.clone() }, "share"),
        (Options { shares: vec![], ..good.clone() }, "share"),
        (Options { epochs: Some(0), ..good.clone() }, "epochs"),
        (Options { keys: 1, ..good }, "keys"),
        (options(&["nothing"]), "captured-paths"),
        (options(&[]), "no scenario"),
    ] {
        let error = run(&bad, &mut |_| {}).unwrap_err();
        assert!(matches!(error, Error::Plan(_)) && error.to_string().contains(says), "{error}");
    }
}

/// All scenarios hold at the size that `make test` can afford.
#[test]
fn every_bound_holds() {
    let options = Options { peers: 600, keys: 5_000, quick: true, ..options(&["all"]) };
    let report = report(&options);
    assert!(report.report.ok(), "{}", report.report.table());
    let names: Vec<_> = report.report.checks.iter().map(|check| check.name.as_str()).collect();
    for (name, _) in scenarios() {
        assert!(names.iter().any(|check| check.starts_with(&format!("{name}: "))), "{name} shows nothing: {names:?}");
    }
}

#[test]
fn parallel_work_is_in_order() {
    assert_eq!(parallel(100, |n| n * n), (0..100).map(|n| n * n).collect::<Vec<_>>());
    assert!(parallel(0, |n| n).is_empty());
}
