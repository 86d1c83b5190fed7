//! Chat: a room with one order at all members, direct messages by the direct way and through the mixnet, and a file.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::Stage;
use crate::{Check, Client, Error, report::round, until};

const PATIENCE: Duration = Duration::from_secs(60);
const ROOM: &str = "#demo";
const TOPIC: &str = "what the demo shows";
/// Messages that each member of the room writes.
const EACH: usize = 20;
const FILE: usize = 20 * 1024 * 1024;

fn clients(stage: &Stage) -> Result<Vec<Client>, Error> {
    stage.testnet.nodes.iter().map(crate::Node::client).collect()
}

/// All nodes write into one room at once; all show the same messages in the same order, and what one of them says it is about.
pub(super) fn room(stage: &Stage) -> Result<Check, Error> {
    let clients = clients(stage)?;
    clients.iter().try_for_each(|client| client.chat_join(ROOM, None))?;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let writers: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(index, client)| {
                scope.spawn(move || {
                    (0..EACH)
                        .try_for_each(|n| client.chat_send(ROOM, &format!("{n} of {index}"), "auto", None).map(drop))
                })
            })
            .collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().unwrap_or_else(|_| Err(Error::Plan("a writer failed".into()))))
    })?;
    let expected = EACH * clients.len();
    let ids = until("every message at every member, in one order", PATIENCE, || {
        let history = |client: &Client| {
            let lines = client.chat_history(ROOM).map_err(|error| error.to_string())?;
            Ok::<_, String>(lines.into_iter().map(|line| (line.id, line.gap_before)).collect::<Vec<_>>())
        };
        let histories = clients.iter().map(history).collect::<Result<Vec<_>, _>>()?;
        let is_whole = |lines: &Vec<(String, bool)>| lines.len() == expected && lines.iter().all(|(_, gap)| !gap);
        let first = histories.first().cloned().unwrap_or_default();
        if is_whole(&first) && histories.iter().all(|other| *other == first) {
            return Ok(first);
        }
        Err(format!("{:?} of {expected}", histories.iter().map(Vec::len).collect::<Vec<_>>()))
    })?;
    let took = began.elapsed();
    clients.iter().take(1).try_for_each(|client| client.chat_topic(ROOM, TOPIC).map(drop))?;
    until("the topic at every member", PATIENCE, || {
        let topics = clients.iter().map(|client| client.chat_topic_of(ROOM)).collect::<Result<Vec<_>, _>>();
        let topics = topics.map_err(|error| error.to_string())?;
        let is_one = topics.iter().all(|topic| topic.as_deref() == Some(TOPIC));
        is_one.then_some(()).ok_or_else(|| format!("{topics:?}"))
    })?;
    Ok(Check::held("chat room", "all members write at once, and all show the same messages in one causal order")
        .with("members", clients.len())
        .with("messages", ids.len())
        .with("seconds", round(took)))
}

/// A relay and the client, who have each other's invite: by the direct way, and through the mixnet alone.
pub(super) fn direct(stage: &Stage) -> Result<Check, Error> {
    let clients = clients(stage)?;
    let (Some(ada), Some(bob)) = (clients.first(), clients.get(stage.client())) else {
        return Ok(Check::failed("direct messages", "there are too few nodes"));
    };
    ada.chat_contact(&bob.invite()?, "bob")?;
    bob.chat_contact(&ada.invite()?, "ada")?;
    let mut wrong = Vec::new();
    let mut times = Vec::new();
    for (from, to, via) in [(ada, "@bob", "auto"), (bob, "@ada", "auto"), (ada, "@bob", "mix"), (bob, "@ada", "mix")] {
        let began = Instant::now();
        let sent = from.chat_send(to, &format!("by {via} to {to}"), via, Some(PATIENCE))?;
        times.push(began.elapsed());
        let is_there = matches!(sent.state.as_str(), "delivered" | "read");
        let is_mixed = matches!(sent.via.as_deref(), Some("mix" | "mailbox"));
        if !is_there || (via == "mix" && !is_mixed) {
            wrong.push(format!("{sent:?}"));
        }
    }
    let texts = |client: &Client, to| -> Result<Vec<String>, Error> {
        Ok(client.chat_history(to)?.into_iter().map(|line| line.text).collect())
    };
    let (at_ada, at_bob) = (texts(ada, "@bob")?, texts(bob, "@ada")?);
    if at_ada != at_bob || at_ada.len() != 4 {
        wrong.push(format!("{at_ada:?} here, {at_bob:?} there"));
    }
    let ms = |at: usize| times.get(at).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    Ok(Check::judged(
        "direct messages",
        &wrong,
        "sealed by Olm, each way, directly and through the mixnet alone; delivered once, in order",
    )
    .with("first_ms", ms(0))
    .with("answer_ms", ms(1))
    .with("mixnet_ms", ms(2)))
}

/// A file in the room, fetched by two others.
pub(super) fn file(stage: &Stage) -> Result<Check, Error> {
    let clients = clients(stage)?;
    let (Some(from), Some(first), Some(second)) = (clients.first(), clients.get(1), clients.get(2)) else {
        return Ok(Check::failed("file", "there are too few nodes"));
    };
    let dir = stage.testnet.dir.join("file");
    let (path, outs) = (dir.join("photo.bin"), [dir.join("first"), dir.join("second")]);
    for out in &outs {
        fs::create_dir_all(out).map_err(Error::file("create", out))?;
    }
    let content: Vec<u8> = (0..FILE).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&path, &content).map_err(Error::file("write", &path))?;
    let offered = from.chat_file_send(ROOM, &path)?;
    let mut figures = Vec::new();
    for (client, out) in [first, second].into_iter().zip(&outs) {
        until("the file's message", PATIENCE, || {
            let lines = client.chat_history(ROOM).map_err(|error| error.to_string())?;
            lines.iter().any(|line| line.id == offered.id).then_some(()).ok_or_else(|| "it is not here".to_owned())
        })?;
        let fetched = client.chat_file_get(&offered.id, out)?;
        let found = fs::read(&fetched.path).map_err(Error::file("read", out))?;
        if found != content {
            return Ok(Check::failed("file", format!("{} bytes came, and they differ", found.len())));
        }
        figures.push(fetched);
    }
    let speed = |file: &crate::ChatFile| (file.bytes as f64 / 1e6 / file.seconds.max(1e-9)).round();
    Ok(Check::held("file", "20 MiB offered in the room, fetched by two members, bytes compared")
        .with("mb_per_s", figures.iter().map(speed).fold(0.0, f64::max))
        .with("sources_of_the_second", figures.last().map_or(0, |file| file.sources)))
}
