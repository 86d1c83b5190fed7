//! Which layout the rows have, and how an older store is brought up to date.
//!
//! The version is a row of its own. Each migration is one batch, committed together with the new version, so a migration that is
//! interrupted happens again from its start. A newer store is refused: this program would misread it.

use super::{Batch, Durability, Store, StoreError, Table};

/// The layout that this program writes.
pub const SCHEMA_VERSION: u32 = 1;

const KEY: &[u8] = b"schema_version";

/// Rewrites the rows of one version as the next.
type Migration = fn(&dyn Store) -> Result<Batch, StoreError>;

/// The migration at index `i` leads from version `i + 1` to `i + 2`.
const MIGRATIONS: [Migration; SCHEMA_VERSION as usize - 1] = [];

/// Brings the store up to date, or refuses it.
pub(super) fn prepare(store: &dyn Store) -> Result<(), StoreError> {
    migrate(store, &MIGRATIONS)
}

/// Refuses a store that is not of this program's version; changes nothing.
pub(super) fn check(store: &dyn Store) -> Result<(), StoreError> {
    match version(store)? {
        Some(SCHEMA_VERSION) => Ok(()),
        Some(found) if found > SCHEMA_VERSION => Err(StoreError::Newer { found, known: SCHEMA_VERSION }),
        _ => Err(StoreError::Io("it has an older layout; start the node once with `fog run`".into())),
    }
}

fn migrate(store: &dyn Store, migrations: &[Migration]) -> Result<(), StoreError> {
    // Bounded by a constant list.
    let known = migrations.len() as u32 + 1;
    let Some(mut at) = version(store)? else {
        return commit(store, Batch::new(), known);
    };
    if at > known {
        return Err(StoreError::Newer { found: at, known });
    }
    for migration in migrations.iter().skip(at.saturating_sub(1) as usize) {
        at += 1;
        commit(store, migration(store)?, at)?;
    }
    Ok(())
}

fn version(store: &dyn Store) -> Result<Option<u32>, StoreError> {
    let Some(bytes) = store.get(Table::Meta, KEY)? else {
        return Ok(None);
    };
    let bytes = bytes.try_into().map_err(|_| StoreError::Damaged("its schema version is not a number".into()))?;
    Ok(Some(u32::from_be_bytes(bytes)))
}

fn commit(store: &dyn Store, mut batch: Batch, version: u32) -> Result<(), StoreError> {
    batch.put(Table::Meta, KEY, version.to_be_bytes());
    store.commit(batch, Durability::Synced)
}

#[cfg(test)]
mod tests {
    use super::{super::MemoryStore, *};

    fn rename(store: &dyn Store) -> Result<Batch, StoreError> {
        let mut batch = Batch::new();
        for (key, value) in store.scan(Table::Seen, b"old/")? {
            batch.put(Table::Seen, [b"new/", &key[4..]].concat(), value);
            batch.delete(Table::Seen, key);
        }
        Ok(batch)
    }

    fn fail(_: &dyn Store) -> Result<Batch, StoreError> {
        Err(StoreError::Io("no".into()))
    }

    #[test]
    fn a_new_store_gets_the_newest_version_without_migrations() {
        let store = MemoryStore::new();
        migrate(&store, &[fail]).unwrap();
        assert_eq!(version(&store), Ok(Some(2)));
        prepare(&MemoryStore::new()).unwrap();
    }

    #[test]
    fn an_older_store_is_migrated_once_and_a_failed_migration_changes_nothing() {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        batch.put(Table::Seen, *b"old/a", *b"1");
        commit(&store, batch, 1).unwrap();
        assert!(migrate(&store, &[fail]).is_err());
        assert_eq!(version(&store), Ok(Some(1)));
        migrate(&store, &[rename]).unwrap();
        migrate(&store, &[rename]).unwrap();
        assert_eq!(store.scan(Table::Seen, b"").unwrap(), [(b"new/a".to_vec(), b"1".to_vec())]);
        assert_eq!(version(&store), Ok(Some(2)));
    }

    #[test]
    fn a_newer_store_is_refused() {
        let store = MemoryStore::new();
        commit(&store, Batch::new(), SCHEMA_VERSION + 1).unwrap();
        let newer = StoreError::Newer { found: SCHEMA_VERSION + 1, known: SCHEMA_VERSION };
        assert_eq!(prepare(&store), Err(newer.clone()));
        assert_eq!(check(&store), Err(newer));
    }
}
