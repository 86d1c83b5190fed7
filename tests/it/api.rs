//! The local API's door: who is let in.

use serde_json::Value;

use super::support::{Alone, raw_http};

struct Door {
    node: Alone,
    address: String,
    token: String,
}

impl Door {
    fn new() -> Self {
        let node = Alone::start();
        let file = node.node_file();
        let api = file["api"].as_str().expect("api").to_owned();
        let address = api.strip_prefix("http://").expect("http").to_owned();
        let token = file["token"].as_str().expect("token").to_owned();
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        assert!(token.len() >= 32, "a token that can be guessed");
        Self { node, address, token }
    }

    fn get(&self, path: &str, host: &str, more: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
        raw_http(&self.address, &request)
    }

    fn with_token(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }
}

#[test]
fn only_the_token_opens_the_api_and_never_from_a_foreign_host_or_origin() {
    let door = Door::new();
    let (own, token) = (door.address.clone(), door.with_token());
    let (status, body) = door.get("/v1/status", &own, &token);
    assert_eq!(status, 200, "{body}");

    for refused in [String::new(), "Authorization: Bearer wrong\r\n".into(), token.replace("Bearer", "Basic")] {
        for path in ["/v1/status", "/v1/peers", "/v1/id", "/metrics", "/v1/mix/recv"] {
            let (status, body) = door.get(path, &own, &refused);
            assert_eq!(status, 401, "{path} with {refused:?}: {body}");
            assert!(!body.contains(&door.token));
        }
    }

    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.1:1"] {
        let (status, body) = door.get("/v1/status", host, &token);
        assert!(matches!(status, 400 | 403 | 421), "Host {host}: {status} {body}");
    }
    let port = own.split(':').next_back().expect("a port");
    assert_eq!(door.get("/v1/status", &format!("localhost:{port}"), &token).0, 200);

    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        let (status, body) = door.get("/v1/status", &own, &format!("{token}Origin: {origin}\r\n"));
        assert_eq!(status, 403, "Origin {origin}: {body}");
    }
}

#[test]
fn health_needs_no_token_and_readiness_tells_the_truth() {
    let door = Door::new();
    assert_eq!(door.get("/healthz", &door.address, "").0, 200);
    // Alone, it has no peer: alive, and not ready.
    assert_eq!(door.get("/readyz", &door.address, "").0, 503);
    assert_eq!(door.node.client().status().expect("a status").state, "joining");
}

#[test]
fn the_api_describes_itself_and_refuses_what_it_does_not_know() {
    let door = Door::new();
    let token = door.with_token();
    let (status, body) = door.get("/v1/openapi.json", &door.address, &token);
    assert_eq!(status, 200, "{body}");
    let start = body.find('{').expect("JSON");
    let end = body.rfind('}').expect("JSON");
    let document: Value = serde_json::from_str(&body[start..=end]).expect("JSON");
    for path in [
        "/v1/status",
        "/v1/peers",
        "/v1/connect",
        "/v1/relays",
        "/v1/relays/snapshot",
        "/v1/reputation",
        "/v1/mix/send",
        "/v1/mix/recv",
    ] {
        assert!(document["paths"].get(path).is_some(), "{path} is not described");
    }
    assert_eq!(door.get("/v1/no-such-thing", &door.address, &token).0, 404);
    let body = "x".repeat(1536 * 1024 + 1);
    let head = format!("POST /v1/connect HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{token}", door.address);
    let (status, body) = raw_http(&door.address, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(status, 413, "{body}");
}

#[test]
fn metrics_count_every_reason_for_a_drop() {
    let door = Door::new();
    let (status, text) = door.get("/metrics", &door.address, &door.with_token());
    assert_eq!(status, 200, "{text}");
    let dashboard = std::fs::read_to_string("docker/grafana/dashboards/fog.json");
    for name in metric_names(&dashboard.expect("the dashboard")) {
        assert!(
            text.contains(&format!("\n{name}")),
            "the Grafana dashboard shows {name}, which no node counts: {text}"
        );
    }
    let reasons =
        "malformed unknown_version wrong_epoch bad_mac replayed rate_limited queue_full no_route expired bad_payload";
    for reason in reasons.split(' ') {
        assert!(text.contains(&format!("reason=\"{reason}\"")), "{reason} is not counted: {text}");
    }
}

/// Every `fog_…` word.
fn metric_names(text: &str) -> std::collections::BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names: std::collections::BTreeSet<_> = words.filter(|word| word.starts_with("fog_")).collect();
    assert!(names.len() > 10, "{names:?}");
    names
}
