//! What is kept across restarts, and how it is read again.
//!
//! | prefix | name | value |
//! |---|---|---|
//! | 17 | coordinator ‖ interval u32 | what it promised: [`Earned`](crate::core::pay::Earned) |
//! | 18 | peer | what is between it and this node: [`Balance`](crate::core::pay::Balance) |
//! | 19 | | this worker's uptime: milliseconds by day |

use std::collections::BTreeSet;

use fog_base::{NodeId, Now, codec};

use super::{Output, Worker};
use crate::core::{
    pay::{Balances, Interval, account_name},
    row::Row,
};

const EARNED: u8 = 17;
const BALANCE: u8 = 18;
const UPTIME: u8 = 19;
/// As many vouchers beyond a gap as an account holds.
const MAX_ROW: usize = 256 * 1024;

impl<B: Balances> Worker<B> {
    /// The row of an account that changed; those of accounts for which there is no room any more go.
    pub(super) fn account_rows(&mut self, coordinator: NodeId, interval: Interval) -> Vec<Row> {
        let account = self.payee.account(coordinator, interval);
        let value = account.and_then(|account| codec::encode(account, MAX_ROW).ok());
        let kept = value.map(|value| Row::put(EARNED, &account_name(coordinator, interval), value));
        kept.into_iter().chain(self.old_account_rows()).collect()
    }

    fn old_account_rows(&mut self) -> Vec<Row> {
        let old = self.payee.trim().into_iter();
        old.map(|(coordinator, interval)| Row::remove(EARNED, &account_name(coordinator, interval))).collect()
    }

    /// The row of a balance; where nothing is owed there is none.
    pub(super) fn balance_row(&self, peer: NodeId) -> Row {
        let kept = self.balances.kept(peer).and_then(|kept| codec::encode(&kept, MAX_ROW).ok());
        match kept {
            Some(value) => Row::put(BALANCE, &peer.0, value),
            None => Row::remove(BALANCE, &peer.0),
        }
    }

    /// Whether it offers anything now; what that does to its price is in the next offer.
    pub(super) fn look_at_uptime(&mut self, now: Now) {
        let is_up = self.offering.is_eligible() && !self.is_frozen();
        if self.uptime.observe(is_up, now) {
            let row = codec::encode(self.uptime.days(), MAX_ROW).ok().map(|value| Row::put(UPTIME, &[], value));
            self.push(Output::Persist(row.into_iter().collect()));
            self.offering.uptime_ppm = self.uptime.multiplier(now.unix);
        }
    }

    /// Takes back what [`Output::Persist`] wrote; rows of others and rows that cannot be read are passed over. Those of balances that are
    /// forgiven by now are removed, and those of accounts for which there is no room.
    pub fn restore(&mut self, rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>, now: Now) {
        let mut peers = BTreeSet::new();
        for (key, value) in rows {
            let Some((prefix, name)) = key.split_first() else { continue };
            match (*prefix, name.len()) {
                (EARNED, 36) => self.restore_account(name, &value),
                (BALANCE, 32) => {
                    let (Ok(peer), Ok(kept)) = (name.try_into().map(NodeId), codec::decode(&value, MAX_ROW)) else {
                        continue;
                    };
                    peers.insert(peer);
                    self.balances.restore(peer, kept, now.unix);
                }
                (UPTIME, 0) => {
                    if let Ok(days) = codec::decode(&value, MAX_ROW) {
                        self.uptime.restore(days, now.unix);
                        self.offering.uptime_ppm = self.uptime.multiplier(now.unix);
                    }
                }
                _ => {}
            }
        }
        let over = peers.into_iter().filter(|peer| self.balances.kept(*peer).is_none());
        let mut rows: Vec<_> = over.map(|peer| Row::remove(BALANCE, &peer.0)).collect();
        rows.extend(self.old_account_rows());
        if !rows.is_empty() {
            self.push(Output::Persist(rows));
        }
    }

    fn restore_account(&mut self, name: &[u8], value: &[u8]) {
        let (Some(coordinator), Some(interval)) = (name.first_chunk::<32>(), name.last_chunk::<4>()) else { return };
        if let Ok(earned) = codec::decode(value, MAX_ROW) {
            self.payee.restore(NodeId(*coordinator), Interval(u32::from_be_bytes(*interval)), earned);
        }
    }
}
