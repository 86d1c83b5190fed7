//! The file system of a run, in memory: `/in` with what was given, which cannot be changed, and `/out`, which starts empty. It has
//! directories and regular files only; no links, no owners, no permissions. Everything about it is bounded.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use super::{Errno, Fault, Guest, Stop};
use crate::core::work::MAX_NAME;

/// The most files and directories at a time.
const MAX_NODES: usize = 4096;
/// The deepest directory; `/out` is at 1.
const MAX_DEPTH: usize = 16;
/// The longest path, in bytes.
const MAX_PATH: u32 = 4096;

/// Bytes that several runs may share.
pub type Bytes = Arc<Vec<u8>>;

/// A file or a directory, by its place in the list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(u32);

#[derive(Debug)]
pub(super) enum Content {
    Dir(BTreeMap<String, NodeId>),
    Given(Bytes),
    File(Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) parent: NodeId,
    depth: usize,
    /// Whether it, or what is in it, can be changed.
    pub(super) writable: bool,
    /// Whether a directory names it.
    linked: bool,
    /// Descriptors that name it.
    open: u32,
    /// Nanoseconds of the virtual clock.
    pub(super) accessed: u64,
    pub(super) modified: u64,
}

impl Node {
    pub(super) fn is_dir(&self) -> bool {
        matches!(self.content, Content::Dir(_))
    }

    pub(super) fn size(&self) -> u64 {
        self.bytes().len() as u64
    }

    /// A file's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Dir(_) => &[],
            Content::Given(bytes) => bytes,
            Content::File(bytes) => bytes,
        }
    }
}

/// Where a path leads: the directory of its last component, that component, and what it names if it exists.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: NodeId,
    /// `None` where the path names the directory itself, as `.` does.
    pub(super) name: Option<String>,
    pub(super) node: Option<NodeId>,
    /// Whether the path ends with a slash.
    pub(super) must_be_dir: bool,
}

impl NodeId {
    /// What `stat` shows.
    pub(super) fn inode(self) -> u64 {
        u64::from(self.0) + 1
    }
}

/// The root directory.
pub(super) const ROOT: NodeId = NodeId(0);
const IN: NodeId = NodeId(1);
const OUT: NodeId = NodeId(2);

/// All files of a run.
#[derive(Debug)]
pub(super) struct Files {
    nodes: Vec<Option<Node>>,
    free: Vec<NodeId>,
    /// Bytes of all files that can be written.
    written: u64,
    limit: u64,
}

impl Files {
    /// `inputs` under `/in`; at most `limit` bytes in all files under `/out`.
    pub(super) fn new(inputs: impl IntoIterator<Item = (String, Bytes)>, limit: u64, now: u64) -> Self {
        let node = |content, depth, writable| {
            let (linked, open) = (true, 0);
            Some(Node { content, parent: ROOT, depth, writable, linked, open, accessed: now, modified: now })
        };
        let top = BTreeMap::from([("in".to_owned(), IN), ("out".to_owned(), OUT)]);
        let mut nodes = Vec::with_capacity(8);
        nodes.push(node(Content::Dir(top), 0, false));
        nodes.push(None);
        nodes.push(node(Content::Dir(BTreeMap::new()), 1, true));
        let mut given = BTreeMap::new();
        for (name, bytes) in inputs {
            given.insert(name, NodeId(nodes.len() as u32));
            let mut file = node(Content::Given(bytes), 2, false);
            file.iter_mut().for_each(|file| file.parent = IN);
            nodes.push(file);
        }
        if let Some(slot) = nodes.get_mut(1) {
            *slot = node(Content::Dir(given), 1, false);
        }
        Self { nodes, free: Vec::new(), written: 0, limit }
    }

    pub(super) fn node(&self, id: NodeId) -> Result<&Node, Errno> {
        self.nodes.get(id.0 as usize).and_then(Option::as_ref).ok_or(Errno::BADF)
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(id.0 as usize).and_then(Option::as_mut).ok_or(Errno::BADF)
    }

    pub(super) fn entries(&self, dir: NodeId) -> Result<&BTreeMap<String, NodeId>, Errno> {
        match &self.node(dir)?.content {
            Content::Dir(entries) => Ok(entries),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn entries_mut(&mut self, dir: NodeId) -> Result<&mut BTreeMap<String, NodeId>, Errno> {
        let node = self.node_mut(dir)?;
        match &mut node.content {
            Content::Dir(_) if !node.writable => Err(Errno::ROFS),
            Content::Dir(entries) => Ok(entries),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Follows the path that the module holds at `at`, from the directory `from`, which it cannot leave.
    pub(super) fn resolve(&self, guest: &mut Guest<'_>, from: NodeId, at: u32, len: u32) -> Result<Place, Fault> {
        if len > MAX_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let path = std::str::from_utf8(guest.read(at, len)?).map_err(|_| Errno::ILSEQ)?;
        if path.is_empty() {
            return Err(Errno::NOENT.into());
        }
        if path.contains('\0') {
            return Err(Errno::INVAL.into());
        }
        if path.starts_with('/') {
            return Err(Errno::NOTCAPABLE.into());
        }
        let must_be_dir = path.ends_with('/') || path.ends_with("/.") || path == ".";
        let mut place = Place { dir: from, name: None, node: Some(from), must_be_dir };
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            // What was named before is a directory that is gone into.
            let dir = place.node.ok_or(Errno::NOENT)?;
            let entries = self.entries(dir)?;
            (place.dir, place.name, place.node) = if part == ".." {
                let up = if dir == from { return Err(Errno::NOTCAPABLE.into()) } else { self.node(dir)?.parent };
                (up, None, Some(up))
            } else if part.len() > MAX_NAME {
                return Err(Errno::NAMETOOLONG.into());
            } else {
                (dir, Some(part.to_owned()), entries.get(part).copied())
            };
        }
        Ok(place)
    }

    /// A new file or directory at a place where nothing is.
    pub(super) fn create(&mut self, place: &Place, is_dir: bool, now: u64) -> Result<NodeId, Errno> {
        let Some(name) = &place.name else { return Err(Errno::EXIST) };
        if place.node.is_some() {
            return Err(Errno::EXIST);
        }
        if place.must_be_dir && !is_dir {
            return Err(Errno::ISDIR);
        }
        let dir = self.node(place.dir)?;
        let (depth, writable, linked) = (dir.depth + 1, dir.writable, dir.linked);
        match (writable, linked) {
            (false, _) => return Err(Errno::ROFS),
            (true, false) => return Err(Errno::NOENT),
            (true, true) => {}
        }
        if depth > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        let content = if is_dir { Content::Dir(BTreeMap::new()) } else { Content::File(Vec::new()) };
        let (parent, open) = (place.dir, 0);
        let node = Node { content, parent, depth, writable: true, linked: true, open, accessed: now, modified: now };
        let id = self.insert(node)?;
        self.entries_mut(place.dir)?.insert(name.clone(), id);
        Ok(id)
    }

    fn insert(&mut self, node: Node) -> Result<NodeId, Errno> {
        if let Some(id) = self.free.pop() {
            if let Some(slot) = self.nodes.get_mut(id.0 as usize) {
                *slot = Some(node);
            }
            return Ok(id);
        }
        if self.nodes.len() >= MAX_NODES {
            return Err(Errno::NOSPC);
        }
        self.nodes.push(Some(node));
        Ok(NodeId(self.nodes.len() as u32 - 1))
    }

    /// Takes the name away; the bytes stay while a descriptor names them.
    pub(super) fn remove(&mut self, place: &Place, is_dir: bool) -> Result<(), Errno> {
        let (Some(name), Some(id)) = (&place.name, place.node) else {
            return Err(if place.node.is_some() { Errno::INVAL } else { Errno::NOENT });
        };
        let node = self.node(id)?;
        if !node.writable || id == OUT {
            return Err(Errno::ROFS);
        }
        match (&node.content, is_dir) {
            (Content::Dir(_), false) => return Err(Errno::ISDIR),
            (Content::Dir(entries), true) if !entries.is_empty() => return Err(Errno::NOTEMPTY),
            (Content::Dir(_), true) => {}
            (_, true) => return Err(Errno::NOTDIR),
            (_, false) if place.must_be_dir => return Err(Errno::NOTDIR),
            (_, false) => {}
        }
        self.entries_mut(place.dir)?.remove(name);
        self.node_mut(id)?.linked = false;
        self.forget_unused(id);
        Ok(())
    }

    /// Gives a file or directory another name; what had that name before is replaced, as POSIX has it.
    pub(super) fn rename(&mut self, guest: &mut Guest<'_>, old: &Place, new: &Place) -> Result<(), Fault> {
        let (Some(old_name), Some(id)) = (&old.name, old.node) else {
            return Err(if old.node.is_some() { Errno::INVAL } else { Errno::NOENT }.into());
        };
        let Some(new_name) = &new.name else { return Err(Errno::INVAL.into()) };
        let (node, dir) = (self.node(id)?, self.node(new.dir)?);
        if !node.writable || !dir.writable || id == OUT {
            return Err(Errno::ROFS.into());
        }
        if !dir.linked {
            return Err(Errno::NOENT.into());
        }
        if !node.is_dir() && (new.must_be_dir || old.must_be_dir) {
            return Err(Errno::NOTDIR.into());
        }
        let is_dir = node.is_dir();
        let mut above = new.dir;
        while above != ROOT {
            guest.charge(1)?;
            if above == id {
                return Err(Errno::INVAL.into());
            }
            above = self.node(above)?.parent;
        }
        if new.node == Some(id) {
            return Ok(());
        }
        let depth = dir.depth + 1;
        if depth + self.height(guest, id)? > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        if new.node.is_some() {
            self.remove(new, is_dir)?;
        }
        self.entries_mut(old.dir)?.remove(old_name);
        match self.entries_mut(new.dir)?.entry(new_name.clone()) {
            Entry::Vacant(entry) => entry.insert(id),
            Entry::Occupied(_) => return Err(Errno::EXIST.into()),
        };
        self.node_mut(id)?.parent = new.dir;
        self.set_depth(id, depth)?;
        Ok(())
    }

    /// How many levels are below; at most [`MAX_DEPTH`], so that recursion is shallow.
    fn height(&self, guest: &mut Guest<'_>, id: NodeId) -> Result<usize, Fault> {
        guest.charge(1)?;
        let Content::Dir(entries) = &self.node(id)?.content else { return Ok(0) };
        let mut height = 0;
        for child in entries.values() {
            height = height.max(1 + self.height(guest, *child)?);
        }
        Ok(height)
    }

    fn set_depth(&mut self, id: NodeId, depth: usize) -> Result<(), Errno> {
        let node = self.node_mut(id)?;
        node.depth = depth;
        let Content::Dir(entries) = &node.content else { return Ok(()) };
        let children: Vec<_> = entries.values().copied().collect();
        children.into_iter().try_for_each(|child| self.set_depth(child, depth + 1))
    }

    pub(super) fn opened(&mut self, id: NodeId) -> Result<(), Errno> {
        self.node_mut(id)?.open += 1;
        Ok(())
    }

    pub(super) fn closed(&mut self, id: NodeId) {
        if let Ok(node) = self.node_mut(id) {
            node.open = node.open.saturating_sub(1);
        }
        self.forget_unused(id);
    }

    fn forget_unused(&mut self, id: NodeId) {
        let unused = self.node(id).is_ok_and(|node| !node.linked && node.open == 0);
        if let (true, Some(slot)) = (unused, self.nodes.get_mut(id.0 as usize)) {
            let size = slot.take().map_or(0, |node| node.size());
            self.written = self.written.saturating_sub(size);
            self.free.push(id);
        }
    }

    /// The bytes of a file from `at` on.
    pub(super) fn read_at(&self, id: NodeId, at: u64) -> Result<&[u8], Errno> {
        let node = self.node(id)?;
        if node.is_dir() {
            return Err(Errno::ISDIR);
        }
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(node.bytes().len());
        Ok(node.bytes().get(at..).unwrap_or_default())
    }

    /// Makes the file `len` bytes long, with zeros at its end. Zeros are paid for like what is written.
    pub(super) fn resize(&mut self, guest: &mut Guest<'_>, id: NodeId, len: u64) -> Result<(), Fault> {
        let old = self.node(id)?.size();
        if len > old {
            // Refused before it is paid for: which of two ends a run has must not depend on the order of checks elsewhere.
            if self.limit - self.written < len - old {
                return Err(Stop::OutputLimit.into());
            }
            guest.charge(len - old)?;
        }
        match &mut self.node_mut(id)?.content {
            Content::File(bytes) => bytes.resize(usize::try_from(len).map_err(|_| Errno::OVERFLOW)?, 0),
            Content::Given(_) => return Err(Errno::ROFS.into()),
            Content::Dir(_) => return Err(Errno::ISDIR.into()),
        }
        self.written = self.written - old + len;
        Ok(())
    }

    /// Writes at `at`, with zeros before it where the file is shorter.
    pub(super) fn write_at(
        &mut self,
        guest: &mut Guest<'_>,
        id: NodeId,
        at: u64,
        from: (u32, u32),
    ) -> Result<(), Fault> {
        let (source, len) = from;
        guest.check(source, len)?;
        let end = at.checked_add(len.into()).ok_or(Errno::INVAL)?;
        if len > 0 && end > self.node(id)?.size() {
            self.resize(guest, id, end)?;
        }
        let bytes = guest.read(source, len)?;
        let Content::File(file) = &mut self.node_mut(id)?.content else { return Err(Errno::ROFS.into()) };
        let (Ok(at), Ok(end)) = (usize::try_from(at), usize::try_from(end)) else { return Err(Errno::OVERFLOW.into()) };
        if let Some(room) = file.get_mut(at..end) {
            room.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// What stands under `/out` at the end: each file by its path there.
    pub(super) fn into_outputs(mut self) -> BTreeMap<String, Vec<u8>> {
        let mut outputs = BTreeMap::new();
        self.collect(OUT, "", &mut outputs);
        outputs
    }

    fn collect(&mut self, dir: NodeId, prefix: &str, into: &mut BTreeMap<String, Vec<u8>>) {
        let Some(Content::Dir(entries)) = self.node_mut(dir).ok().map(|node| &mut node.content) else { return };
        for (name, id) in std::mem::take(entries) {
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            match self.node_mut(id).map(|node| &mut node.content) {
                Ok(Content::File(bytes)) => drop(into.insert(path, std::mem::take(bytes))),
                Ok(Content::Dir(_)) => self.collect(id, &path, into),
                _ => {}
            }
        }
    }
}
