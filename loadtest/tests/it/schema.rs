//! Scenarios as an editor judges them, by the schema that lies beside them.

use std::path::{Path, PathBuf};

use jsonschema::Validator;
use roomcast_load::run::Scenario;
use serde_json::Value;

const GOOD: &str = "about: x\nrooms: 2\nmembers: 3\nconnects_per_second: 10\nlasts: 1\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn validator() -> Validator {
    let schema = std::fs::read_to_string(folder().join("schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

/// What is wrong with a scenario, and where.
fn errors(validator: &Validator, scenario: &str) -> Vec<String> {
    let scenario: Value = serde_saphyr::from_str(scenario).unwrap();
    let errors = validator.iter_errors(&scenario);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn every_scenario_that_comes_with_it_fits_the_schema() {
    let validator = validator();
    let files = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let scenarios: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|end| end == "yaml"))
        .collect();
    assert!(scenarios.len() >= 6, "{scenarios:?}");
    for file in scenarios {
        let found = errors(&validator, &std::fs::read_to_string(&file).unwrap());
        assert_eq!(found, Vec::<String>::new(), "{}", file.display());
    }
}

#[test]
fn what_no_scenario_may_say_both_the_schema_and_the_run_refuse() {
    let (validator, folder) = (validator(), tempfile::tempdir().unwrap());
    let read = |text: &str| {
        let file = folder.path().join("scenario.yaml");
        std::fs::write(&file, text).unwrap();
        Scenario::read(&file).is_ok()
    };
    assert_eq!(errors(&validator, GOOD), Vec::<String>::new());
    assert!(read(GOOD));
    for (wrong, place) in [
        ("rat: 1\n", ": Additional properties"),
        ("limits: {ack_p99: 3}\n", "/limits: Additional properties"),
        ("rate: fast\n", "/rate: "),
        ("nodes: -1\n", "/nodes: "),
        ("rates: [[0, 1, 2]]\n", "/rates/0: "),
        ("model: {wordz: 1}\n", "/model: Additional properties"),
        ("slow_readers: {share: 0.1}\n", "/slow_readers: "),
        (
            "floods: [{kind: rain, sockets: 1, per_second: 1}]\n",
            "/floods/0/kind: ",
        ),
        ("floods: [{kind: events, sockets: 1}]\n", "/floods/0: \"per_second\""),
        ("groups: [{name: x, rooms: 1}]\n", "/groups/0: \"members\""),
        (
            "groups: [{name: x, rooms: 1, members: 1, nodes: 1}]\n",
            "/groups/0: Additional properties",
        ),
    ] {
        let found = errors(&validator, &format!("{GOOD}{wrong}"));
        assert!(found.iter().any(|error| error.starts_with(place)), "{wrong}: {found:?}");
        assert!(!read(&format!("{GOOD}{wrong}")), "{wrong}");
    }
    for field in ["about", "connects_per_second", "lasts"] {
        let without: String = GOOD
            .lines()
            .filter(|line| !line.starts_with(field))
            .map(|line| format!("{line}\n"))
            .collect();
        let found = errors(&validator, &without);
        assert!(found.len() == 1 && found[0].contains(field), "{field}: {found:?}");
        assert!(!read(&without), "{field}");
    }
}
