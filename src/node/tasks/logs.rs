//! What tasks that have not ended wrote so far, and who follows them. It is what workers say, not verified: the outcome has the rest.

use std::collections::{BTreeMap, VecDeque};

use fog_base::NodeId;
use fog_tasks::core::ids::TaskId;
use tokio::sync::mpsc;

use super::report::LogLine;

/// Tasks whose text is kept, and bytes of one.
const MAX_TASKS: usize = 1_024;
const MAX_BYTES: usize = 64 * 1024;
/// Pieces that may wait for a slow reader; what does not fit is left out.
pub(super) const FOLLOWED: usize = 256;

#[derive(Debug, Default)]
struct Log {
    lines: VecDeque<LogLine>,
    bytes: usize,
    followers: Vec<mpsc::Sender<LogLine>>,
}

/// The logs of tasks.
#[derive(Debug, Default)]
pub(super) struct Logs(BTreeMap<TaskId, Log>);

impl Logs {
    pub(super) fn add(&mut self, task: TaskId, worker: NodeId, is_stderr: bool, bytes: &[u8]) {
        if self.0.len() >= MAX_TASKS && !self.0.contains_key(&task) {
            return;
        }
        let log = self.0.entry(task).or_default();
        let line = LogLine {
            worker: worker.to_string(),
            stream: if is_stderr { "stderr" } else { "stdout" }.into(),
            text: String::from_utf8_lossy(bytes).into_owned(),
        };
        log.followers
            .retain(|follower| !matches!(follower.try_send(line.clone()), Err(mpsc::error::TrySendError::Closed(_))));
        log.bytes += line.text.len();
        log.lines.push_back(line);
        while log.bytes > MAX_BYTES
            && let Some(oldest) = log.lines.pop_front()
        {
            log.bytes -= oldest.text.len();
        }
    }

    /// What is there, and, with `follow`, what comes until the task ends.
    pub(super) fn read(&mut self, task: TaskId, follow: bool) -> mpsc::Receiver<LogLine> {
        let log = self.0.entry(task).or_default();
        let (sender, lines) = mpsc::channel(log.lines.len() + FOLLOWED);
        for line in &log.lines {
            drop(sender.try_send(line.clone()));
        }
        if follow {
            log.followers.push(sender);
        }
        lines
    }

    /// Tasks of which this does not hold have ended, or are not there any more.
    pub(super) fn keep(&mut self, is_open: impl Fn(&TaskId) -> bool) {
        self.0.retain(|task, _| is_open(task));
    }

    /// The task ended: nobody follows it any more, and its outcome has its text.
    pub(super) fn end(&mut self, task: TaskId) {
        self.0.remove(&task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_bounded_and_followed_until_its_task_ends() {
        let (task, worker) = (TaskId([1; 16]), NodeId([2; 32]));
        let mut logs = Logs::default();
        let mut followed = logs.read(task, true);
        logs.add(task, worker, false, b"one");
        logs.add(task, worker, true, &[b'x'; MAX_BYTES]);
        let mut late = logs.read(task, false);
        assert_eq!((late.try_recv().unwrap().stream.as_str(), late.try_recv().is_err()), ("stderr", true));
        assert_eq!(followed.try_recv().unwrap().text, "one");
        logs.keep(|open| *open == task);
        assert_eq!(logs.0.len(), 1);
        logs.end(task);
        assert_eq!(followed.try_recv().unwrap().text.len(), MAX_BYTES);
        assert_eq!(followed.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }
}
