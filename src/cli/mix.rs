//! `fog mix send`, `recv` and `ping`

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{CliError, Context, TIMEOUT, client::Client, output::printable, progress::Progress};
use crate::{
    api::{MAX_MESSAGE, PingRequest, ReceiveRequest, SendRequest},
    node::report::{PingReply, PingSummary, Received, SendProgress, Sent},
};

const SEND_TIMEOUT: Duration = Duration::from_secs(120);

/// What can be done with the mixnet.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Send a message and wait until it was accepted (or, without --wait, stored by the recipient's mailbox)
    Send(Send),
    /// Print messages not yet read, oldest first, and mark them read
    Recv(Receive),
    /// Measure round trips
    Ping(Ping),
}

/// What `fog mix send` takes.
#[derive(Debug, Args)]
pub(super) struct Send {
    /// Whom: the id of a relay, an invite, or a contact's name
    #[arg(value_name = "PEER")]
    to: String,
    /// The message
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    text: Option<String>,
    /// Send what this file holds, at most 1 MiB; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Relays on each path, the recipient's included [default: 4]
    #[arg(long, value_name = "N")]
    hops: Option<usize>,
    /// Do not tell the recipient who sent it
    #[arg(long)]
    anonymous: bool,
    /// Wait for the recipient's node even if its mailbox stored the message
    #[arg(long)]
    wait: bool,
}

/// What `fog mix recv` takes.
#[derive(Debug, Args)]
pub(super) struct Receive {
    /// Stay, and print what comes, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Also messages already read, of the last 7 days
    #[arg(long)]
    all: bool,
}

/// What `fog mix ping` takes.
#[derive(Debug, Args)]
pub(super) struct Ping {
    /// Whom: the id of a relay, an invite, or a contact's name
    #[arg(value_name = "PEER")]
    to: String,
    /// How many
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    count: u32,
    /// Relays on each path, the recipient's included [default: 4]
    #[arg(long, value_name = "N")]
    hops: Option<usize>,
}

/// Does it.
pub(super) fn run(context: &Context, command: Command) -> Result<(), CliError> {
    match command {
        Command::Send(arguments) => send(context, arguments),
        Command::Recv(arguments) => receive(context, &arguments),
        Command::Ping(arguments) => ping(context, arguments),
    }
}

fn send(context: &Context, arguments: Send) -> Result<(), CliError> {
    let body = match (arguments.text, &arguments.file) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(file)) => read(file)?,
        (None, None) => return Err(CliError::usage("there is no message", "give a text, or --file")),
    };
    if body.len() > MAX_MESSAGE {
        let hint = format!("a message has at most {MAX_MESSAGE} bytes; send it in parts");
        return Err(CliError::usage("the message is too long", hint));
    }
    let timeout = context.timeout(SEND_TIMEOUT);
    let request = SendRequest {
        to: arguments.to,
        text: None,
        base64: Some(BASE64.encode(&body)),
        hops: arguments.hops,
        anonymous: arguments.anonymous,
        wait: arguments.wait,
        timeout_s: Some(timeout.as_secs()),
    };
    let client = Client::open(&context.config)?;
    let mut progress = Progress::start();
    let mut end: Option<Sent> = None;
    client.stream("/v1/mix/send", &request, Some(timeout), |line| {
        if let Some(sent) = line.get("progress") {
            let SendProgress { acknowledged, packets } = parse(sent.clone())?;
            progress.show(|| format!("{acknowledged} of {packets} packets acknowledged"));
        } else {
            end = Some(parse(line)?);
        }
        Ok(())
    })?;
    drop(progress);
    let sent = end.ok_or_else(cut_short)?;
    context.out.value(&sent, |sent| {
        let (state, packets, again) = (&sent.state, sent.packets, sent.retransmissions);
        format!("{state} after {} ms: {packets} packets over {} hops, {again} sent again\n", sent.latency_ms, sent.hops)
    })?;
    // Only time makes a message fail that was accepted for sending.
    let reason = sent.reason.unwrap_or_else(|| "no reason given".into());
    match sent.state.as_str() {
        "failed" => Err(CliError::timed_out(
            format!("the message was not delivered: {reason}"),
            "`fog status` shows whether the mixnet is ready; `--timeout` gives it more time",
        )),
        "stored" if arguments.wait => Err(CliError::timed_out(
            format!("a mailbox has the message, and its recipient did not fetch it: {reason}"),
            "it will be delivered when the recipient is back; without `--wait` that counts as done",
        )),
        _ => Ok(()),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |error: io::Error| {
        CliError::failed(
            format!("`{}` cannot be read: {error}", file.display()),
            "see that it exists and is yours to read",
        )
    };
    // One byte more than fits, so that a longer file is noticed and not read whole.
    let limit = MAX_MESSAGE as u64 + 1;
    let mut body = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut body).map_err(failed)?;
    } else {
        File::open(file).map_err(failed)?.take(limit).read_to_end(&mut body).map_err(failed)?;
    }
    Ok(body)
}

fn receive(context: &Context, arguments: &Receive) -> Result<(), CliError> {
    let request = ReceiveRequest { all: arguments.all, follow: arguments.follow };
    let limit = (!arguments.follow).then(|| context.timeout(TIMEOUT));
    let client = Client::open(&context.config)?;
    if arguments.follow {
        super::end_on_signal()?;
    }
    client.stream("/v1/mix/recv", &request, limit, |line| {
        let message: Received = parse(line)?;
        let printed = context.out.value(&message, |message| {
            let from = message.from.as_deref().unwrap_or("anonymous");
            let body = match (&message.text, &message.base64) {
                (Some(text), _) => printable(text),
                (None, Some(base64)) => format!("base64:{base64}"),
                (None, None) => String::new(),
            };
            format!("{} {from}: {body}\n", message.received_at)
        });
        printed.map_err(|error| error.with_hint("it is marked read: `fog mix recv --all` prints it again"))
    })?;
    if arguments.follow { Err(client.stopped()) } else { Ok(()) }
}

fn ping(context: &Context, arguments: Ping) -> Result<(), CliError> {
    let timeout = context.timeout(TIMEOUT);
    let request = PingRequest {
        to: arguments.to,
        count: arguments.count,
        hops: arguments.hops,
        timeout_s: Some(timeout.as_secs()),
    };
    let mut summary: Option<PingSummary> = None;
    // The node limits each ping; the series has no limit of its own.
    Client::open(&context.config)?.stream("/v1/mix/ping", &request, None, |line| {
        if line.get("seq").is_some() {
            let reply: PingReply = parse(line)?;
            return context.out.value(&reply, |reply| match reply.rtt_ms {
                Some(rtt) => format!("{}: {rtt:.1} ms over {} hops\n", reply.seq, reply.hops),
                None => format!("{}: lost\n", reply.seq),
            });
        }
        let end: PingSummary = parse(line)?;
        context.out.value(&end, describe)?;
        summary = Some(end);
        Ok(())
    })?;
    match summary {
        None => Err(cut_short()),
        Some(PingSummary { received: 0, .. }) => {
            Err(CliError::timed_out("no ping came back", "`fog status` shows whether the mixnet is ready"))
        }
        Some(_) => Ok(()),
    }
}

fn describe(summary: &PingSummary) -> String {
    let ms = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.1} ms"));
    let PingSummary { sent, received, loss, min_ms, median_ms, max_ms } = summary;
    let percent = loss * 100.0;
    let (min, median, max) = (ms(*min_ms), ms(*median_ms), ms(*max_ms));
    format!("{sent} sent, {received} received, {percent:.1} % lost; min {min}, median {median}, max {max}\n")
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, CliError> {
    serde_json::from_value(value).map_err(|error| {
        CliError::failed(format!("the node's answer cannot be read: {error}"), "are both of one version?")
    })
}

fn cut_short() -> CliError {
    CliError::failed("the node ended before it answered", "see whether it still runs: `fog status`")
}
