//! `fog chat`, the terminal interface: a client of the running node's local API.
//!
//! What it holds is bounded: 512 conversations, 2,000 entries of the open one, 200 of each of the 15 opened before it, and 256 waiting
//! questions. It asks for the status every second, for the conversations every 10 s, and follows the node's events; the order of
//! messages is always the node's. Whatever a peer can write passes through `text.rs` before it is drawn.
//!
//! It holds no protocol and no keys. `app.rs` is the whole state, and pure: keys, answers and events come in, questions go out. This file
//! is the loop around it, `remote.rs` asks the node, `draw.rs` shows the state, `screen.rs` borrows the terminal.

mod act;
mod app;
mod commands;
mod draw;
mod events;
mod input;
mod model;
mod palette;
mod remote;
mod room;
mod screen;
mod text;

#[cfg(test)]
mod act_tests;
#[cfg(test)]
mod app_tests;
#[cfg(test)]
mod draw_tests;
#[cfg(test)]
mod loop_tests;

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IsTerminal},
    pin::Pin,
    time::{Duration, Instant},
};

use crossterm::event::{Event as TerminalEvent, EventStream};
use futures::{Stream, StreamExt, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::MissedTickBehavior};

use self::{
    app::App,
    model::{Ask, Event, Node, Refusal, What},
    remote::Remote,
    screen::Screen,
};
use crate::{cli::CliError, config::Config};

/// Events of the node that wait to be shown. When it is full, the node's stream waits.
const MAX_EVENTS: usize = 1_024;
/// Questions that are asked at one time; messages go one after the other, so that their order is the person's.
const MAX_ASKED: usize = 16;
/// Questions that wait. What comes beyond is refused in plain sight.
const MAX_WAITING: usize = 256;
/// The screen is drawn at most this often.
const FRAME: Duration = Duration::from_millis(33);
const BEAT: Duration = Duration::from_millis(500);

/// Runs it until the person ends it.
pub(in crate::cli) fn run(config: &Config) -> Result<(), CliError> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let hint = "scripts use `fog chat send`, `history` and `conversations`";
        return Err(CliError::usage("the terminal interface needs a terminal", hint));
    }
    let node = Remote::open(config)?;
    let failed =
        |error: io::Error| CliError::failed(format!("the terminal cannot be used: {error}"), "is it still there?");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let farewell = runtime.block_on(async {
        let mut screen = Screen::take()?;
        // https://no-color.org
        let has_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let size = screen.terminal.size()?;
        let app = App::new(has_colour, (size.width, size.height));
        let draw = |app: &App, is_afresh: bool| {
            if is_afresh {
                screen.terminal.clear()?;
            }
            screen.terminal.draw(|frame| draw::draw(app, frame)).map(drop)
        };
        drive(app, &node, EventStream::new(), stopped()?, draw).await
    });
    // A question in progress does not hold up the end.
    runtime.shutdown_background();
    if let Some(farewell) = farewell.map_err(failed)? {
        eprintln!("{farewell}");
    }
    Ok(())
}

/// Ends when the process is told to end.
fn stopped() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()];
        let signals = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
        Ok(async move {
            let mut signals = signals;
            let received = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
            futures::future::select_all(received).await;
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        let _told = tokio::signal::ctrl_c().await;
    })
}

type Asked<'a> = Pin<Box<dyn Future<Output = Event> + 'a>>;

/// Questions on their way to the node.
struct Questions<'a, N> {
    node: &'a N,
    progress: mpsc::Sender<Event>,
    asked: FuturesUnordered<Asked<'a>>,
    waiting: VecDeque<Ask>,
    is_sending: bool,
}

impl<'a, N: Node> Questions<'a, N> {
    /// Takes a question; gives it back as refused if too many wait.
    fn push(&mut self, ask: Ask) -> Option<Event> {
        if self.waiting.len() >= MAX_WAITING {
            let refusal = Refusal::new("too much is waiting for the node", "/retry sends it again");
            return Some(Event::Answer { ask, reply: Err(refusal) });
        }
        self.waiting.push_back(ask);
        self.start();
        None
    }

    fn start(&mut self) {
        while self.asked.len() < MAX_ASKED {
            let can_start = |ask: &Ask| !(self.is_sending && matches!(ask.what, What::Send { .. }));
            let Some(ask) = self.waiting.iter().position(can_start).and_then(|at| self.waiting.remove(at)) else {
                return;
            };
            self.is_sending |= matches!(ask.what, What::Send { .. });
            let (node, progress) = (self.node, self.progress.clone());
            self.asked.push(Box::pin(async move {
                let reply = node.ask(ask.what.clone(), progress).await;
                Event::Answer { ask, reply }
            }));
        }
    }

    /// The next answer; never, while nothing is asked.
    async fn next(&mut self) -> Event {
        let Some(answer) = self.asked.next().await else { return std::future::pending().await };
        if matches!(&answer, Event::Answer { ask, .. } if matches!(ask.what, What::Send { .. })) {
            self.is_sending = false;
        }
        self.start();
        answer
    }
}

/// The loop: keys, the node's events, answers and time go to the app; its questions go to the node. Returns the app's last words.
async fn drive(
    mut app: App,
    node: &impl Node,
    mut keys: impl Stream<Item = io::Result<TerminalEvent>> + Unpin,
    stopped: impl Future<Output = ()>,
    mut draw: impl FnMut(&App, bool) -> io::Result<()>,
) -> io::Result<Option<&'static str>> {
    let (sender, mut events) = mpsc::channel(MAX_EVENTS);
    node.follow(sender.clone());
    let (asked, waiting) = (FuturesUnordered::new(), VecDeque::new());
    let mut questions = Questions { node, progress: sender, asked, waiting, is_sending: false };
    #[expect(clippy::disallowed_methods, reason = "the clock is read here, and given to the app")]
    let started = Instant::now();
    let mut beat = tokio::time::interval(BEAT);
    let mut frame = tokio::time::interval(FRAME);
    frame.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopped = std::pin::pin!(stopped);
    let mut asks = app.start();
    let (mut is_changed, mut is_afresh) = (true, false);
    loop {
        let mut todo = VecDeque::from(std::mem::take(&mut asks));
        while let Some(ask) = todo.pop_front() {
            match ask.what {
                What::Quit => return Ok(app.farewell),
                What::Redraw => is_afresh = true,
                _ => {
                    if let Some(refused) = questions.push(ask) {
                        todo.extend(app.handle_event(refused));
                    }
                }
            }
        }
        tokio::select! {
            () = &mut stopped => return Ok(None),
            event = keys.next() => {
                asks = match event {
                    Some(event) => terminal_event(&mut app, event?),
                    // The terminal is gone.
                    None => return Ok(None),
                };
            }
            event = events.recv() => {
                let Some(event) = event else { return Ok(None) };
                asks = app.handle_event(event);
            }
            answer = questions.next() => asks = app.handle_event(answer),
            _ = beat.tick() => asks = app.tick(started.elapsed()),
            _ = frame.tick(), if is_changed || is_afresh => {
                draw(&app, is_afresh)?;
                (is_changed, is_afresh) = (false, false);
                continue;
            }
        }
        is_changed = true;
    }
}

fn terminal_event(app: &mut App, event: TerminalEvent) -> Vec<Ask> {
    match event {
        TerminalEvent::Key(key) => app.handle_key(key),
        TerminalEvent::Paste(text) => app.handle_paste(&text),
        TerminalEvent::Resize(width, height) => {
            app.handle_resize(width, height);
            Vec::new()
        }
        _ => Vec::new(),
    }
}
