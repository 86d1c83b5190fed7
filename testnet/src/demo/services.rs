//! A service: a web server at the client, reached by name from a relay, and neither learns where the other is.

use std::time::{Duration, Instant};

use super::Stage;
use crate::{Check, Error, report::round, services, until};

const PATIENCE: Duration = Duration::from_secs(90);
const FILE: usize = 10 * 1024 * 1024;

/// A page and a file of 10 MiB through a service.
pub(super) fn service(stage: &Stage) -> Result<Check, Error> {
    let (host, guest) = (stage.testnet.nodes.get(stage.client()), stage.testnet.nodes.first());
    let (Some(host), Some(guest)) = (host, guest) else {
        return Ok(Check::failed("service", "there are too few nodes"));
    };
    let (host, guest) = (host.client()?, guest.client()?);
    let Some(socks) = guest.socks() else { return Ok(Check::failed("service", "the node has no proxy")) };
    let web = services::serve_web().map_err(Error::file("serve", "a web page"))?;
    let began = Instant::now();
    let address = host.service_add(web, "demo")?;
    until("the service has reached itself", PATIENCE, || {
        let all = host.services().map_err(|error| error.to_string())?;
        let is_reached =
            all.iter().any(|one| one.address == address && matches!(one.state.as_str(), "reachable" | "degraded"));
        if is_reached { Ok(()) } else { Err(format!("{all:?}")) }
    })?;
    let reachable = began.elapsed();
    let fetch = |path: &str| services::fetch(socks, &address, path, None).map_err(|error| error.to_string());
    let began = Instant::now();
    let first = fetch("/");
    let cold = began.elapsed();
    let began = Instant::now();
    let second = fetch("/");
    let warm = began.elapsed();
    let began = Instant::now();
    let file = fetch(&format!("/{FILE}"));
    let seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let through_mixnet = services::fetch_mixed(socks, &address, "/20000", None).map_err(|error| error.to_string());
    let mixed = began.elapsed();
    let wrong = services::connect(socks, &format!("{}.fog", "a".repeat(56)), 80).err().map(|error| error.to_string());
    let pages_hold = first.as_deref() == Ok(b"a page") && second.as_deref() == Ok(b"a page");
    let file_holds = file.as_deref() == Ok(services::page(FILE).as_slice());
    let mixed_holds = through_mixnet.as_deref() == Ok(services::page(20_000).as_slice());
    let refusal_holds = wrong.as_deref().is_some_and(|error| error.contains("0xf6"));
    let detail = "a web server reached by its name through circuits, and through the mixnet; 10 MiB compared; a wrong name refused with its code";
    let check = if pages_hold && file_holds && mixed_holds && refusal_holds {
        Check::held("service", detail)
    } else {
        let wrong = format!("{first:?}, {second:?}, file {file_holds}, mixed {mixed_holds}, wrong name: {wrong:?}");
        Check::failed("service", wrong)
    };
    Ok(check
        .with("reachable s", round(reachable))
        .with("cold ms", cold.as_millis() as u64)
        .with("warm ms", warm.as_millis() as u64)
        .with("mixed ms", mixed.as_millis() as u64)
        .with("mb per s", (FILE as f64 / 1e6 / seconds * 10.0).round() / 10.0))
}
