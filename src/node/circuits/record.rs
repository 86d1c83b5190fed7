//! A record of what circuits, and for services the mixnet, bring to this node, for tests of what each party can see: a line of JSON for each cell. Only if
//! `[faults] record` asks for it, which no network of others allows.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use data_encoding::HEXLOWER;
use fog_circuits::Record;
use serde_json::json;

/// Its name in the data directory.
const FILE: &str = "circuits.record";

/// A file that is written to.
#[derive(Debug)]
pub(super) struct Recorder(File);

impl Recorder {
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        File::options().create(true).append(true).open(data_dir.join(FILE)).map(Self)
    }

    /// Adds a line. A record that has a gap fails its test, which is told in the log.
    pub(super) fn add(&mut self, record: &Record) {
        let line = json!({
            "circuit": record.circuit.map(|circuit| circuit.0),
            "joined": record.joined.map(|circuit| circuit.0),
            "from": HEXLOWER.encode(&record.from.0),
            "is_opened": record.is_opened,
            "bytes": HEXLOWER.encode(&record.bytes),
        });
        self.write(&line);
    }

    /// Adds what came through the mixnet for services. From whom nobody knows.
    pub(super) fn add_mixed(&mut self, bytes: &[u8]) {
        let line = json!({
            "circuit": null,
            "joined": null,
            "from": HEXLOWER.encode(&[0; 32]),
            "is_opened": true,
            "bytes": HEXLOWER.encode(bytes),
        });
        self.write(&line);
    }

    fn write(&mut self, line: &serde_json::Value) {
        if let Err(error) = self.0.write_all(format!("{line}\n").as_bytes()) {
            tracing::error!(%error, "the record of circuits has a gap");
        }
    }
}
