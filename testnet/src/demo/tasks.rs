//! Fog compute: tiles of the Mandelbrot set, computed by the relays for the client, checked against the same computation here.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use serde_json::json;

use super::Stage;
use crate::{Check, Error, report::round, tasks, until};

const PATIENCE: Duration = Duration::from_secs(120);
/// Tiles along each side.
const SIDE: u32 = 4;
const PIXELS: i32 = 96;
const LIMIT: i32 = 4_000;

/// Sixteen tiles in one batch.
pub(super) fn mandelbrot(stage: &Stage) -> Result<Check, Error> {
    let Some(node) = stage.testnet.nodes.get(stage.client()) else {
        return Ok(Check::failed("compute", "there is no client"));
    };
    let client = node.client()?;
    let dir = stage.testnet.dir.join("tiles");
    fs::create_dir_all(&dir).map_err(Error::file("make", &dir))?;
    let module = tasks::write_module(&dir, "mandelbrot.wasm", tasks::MANDELBROT)?;
    let relay = stage.testnet.nodes.first().map(|node| node.client()).transpose()?;
    if let Some(relay) = relay {
        until("a relay works for others", PATIENCE, || {
            let worker = relay.worker().map_err(|error| error.to_string())?;
            if worker.eligible { Ok(()) } else { Err(worker.reasons.join("; ")) }
        })?;
    }
    let step = 3.0 / f64::from(SIDE);
    let places: Vec<_> =
        (0..SIDE * SIDE).map(|at| (-2.25 + step * f64::from(at % SIDE), -1.5 + step * f64::from(at / SIDE))).collect();
    let wanted: Vec<_> = places
        .iter()
        .map(|(x, y)| {
            let args = [x.to_string(), y.to_string(), step.to_string(), PIXELS.to_string(), LIMIT.to_string()];
            json!({ "module": module.display().to_string(), "args": args })
        })
        .collect();
    let began = Instant::now();
    let (ids, placed) = client.task_batch(&wanted)?;
    let (mut wrong, mut workers, mut price, mut runs, mut fuel) = (Vec::new(), BTreeSet::new(), 0, 0, 0);
    for (id, (x, y)) in ids.iter().zip(&places) {
        let task = client.task_wait(id, PATIENCE)?;
        if task.state != "done" || task.exit != Some(0) {
            wrong.push(format!("{} is {}: {:?}", task.id, task.state, task.reason));
            continue;
        }
        let out = dir.join(id);
        client.task_output(id, &out)?;
        let tile = out.join("tile.pgm");
        if fs::read(&tile).map_err(Error::file("read", &tile))? != tasks::mandelbrot(*x, *y, step, PIXELS, LIMIT) {
            wrong.push(format!("the tile of {id} is not the right one"));
        }
        workers.extend(task.replicas.iter().map(|replica| replica.worker.clone()));
        runs += task.replicas.iter().filter(|replica| replica.price > 0).count();
        price += task.price;
        fuel += task.fuel.unwrap_or_default();
    }
    let took = began.elapsed();
    if ids.len() != places.len() {
        wrong.push(format!("{} of {} tasks were taken", ids.len(), places.len()));
    }
    if workers.len() < 2 || price == 0 {
        wrong.push(format!("{} workers, {price} micro-credits", workers.len()));
    }
    let points = placed.get("pareto").and_then(|points| points.as_array()).map_or(0, Vec::len);
    let detail = format!(
        "{} tiles placed together on {} workers, each result agreed on by replicas and equal to the same tile computed here",
        ids.len(),
        workers.len()
    );
    Ok(Check::judged("compute", &wrong, detail)
        .with("s", round(took))
        .with("runs", runs)
        .with("gfuel", (fuel as f64 / 1e9 * 100.0).round() / 100.0)
        .with("price micro-credits", price)
        .with("points placed from", points))
}
