//! The table of open descriptors: 0 to 2 are the standard streams, 3 is the root directory, which alone is open from the start.

use super::{
    Answer, Errno, Guest, Wasi,
    files::{NodeId, ROOT},
    guest::Piece,
};

/// The most descriptors that are open.
const MAX_OPEN: usize = 256;

/// Rights by their bits (`rights` in the witx). Only reading and writing are held to; the others are shown as they were asked for.
pub(super) mod rights {
    pub(crate) const READ: u64 = 1 << 1;
    pub(crate) const WRITE: u64 = 1 << 6;
    pub(super) const STDIN: u64 = READ | POLL;
    pub(super) const STDOUT: u64 = WRITE | POLL;
    /// All but those of sockets.
    pub(super) const ALL: u64 = (1 << 28) - 1;
    /// What is asked of files is no right of a directory.
    pub(super) const DIRECTORY: u64 = ALL & !(READ | WRITE | (1 << 2) | (1 << 5) | (1 << 8) | (1 << 22));
    const POLL: u64 = 1 << 27;
}

/// File types (`filetype` in the witx).
pub(super) const UNKNOWN: u8 = 0;
pub(super) const DIRECTORY: u8 = 3;
pub(super) const REGULAR: u8 = 4;

/// `fdflags`: writes go to the end.
pub(super) const APPEND: u16 = 1;
const KNOWN_FLAGS: u16 = 0b1_1111;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stdin,
    Stdout,
    Stderr,
    Dir(NodeId),
    File(NodeId),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptor {
    pub(super) kind: Kind,
    /// Where the next read or write is.
    pub(super) at: u64,
    pub(super) flags: u16,
    pub(super) rights: u64,
    pub(super) inheriting: u64,
    preopened: bool,
}

impl Descriptor {
    pub(super) fn new(kind: Kind, flags: u16, rights: u64, inheriting: u64) -> Self {
        Self { kind, at: 0, flags, rights, inheriting, preopened: false }
    }

    /// The node, if it is a file or a directory.
    pub(super) fn node(&self) -> Option<NodeId> {
        match self.kind {
            Kind::Dir(node) | Kind::File(node) => Some(node),
            _ => None,
        }
    }

    pub(super) fn may(&self, right: u64) -> Result<(), Errno> {
        if self.rights & right == right { Ok(()) } else { Err(Errno::NOTCAPABLE) }
    }
}

#[derive(Debug)]
pub(super) struct Descriptors(Vec<Option<Descriptor>>);

impl Default for Descriptors {
    fn default() -> Self {
        let root =
            Descriptor { preopened: true, ..Descriptor::new(Kind::Dir(ROOT), 0, rights::DIRECTORY, rights::ALL) };
        Self(vec![
            Some(Descriptor::new(Kind::Stdin, 0, rights::STDIN, 0)),
            Some(Descriptor::new(Kind::Stdout, APPEND, rights::STDOUT, 0)),
            Some(Descriptor::new(Kind::Stderr, APPEND, rights::STDOUT, 0)),
            Some(root),
        ])
    }
}

impl Descriptors {
    pub(super) fn get(&self, fd: u32) -> Result<&Descriptor, Errno> {
        self.0.get(fd as usize).and_then(Option::as_ref).ok_or(Errno::BADF)
    }

    pub(super) fn get_mut(&mut self, fd: u32) -> Result<&mut Descriptor, Errno> {
        self.0.get_mut(fd as usize).and_then(Option::as_mut).ok_or(Errno::BADF)
    }

    /// The directory that `fd` is.
    pub(super) fn dir(&self, fd: u32) -> Result<NodeId, Errno> {
        match self.get(fd)?.kind {
            Kind::Dir(node) => Ok(node),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Whether one more can be opened.
    pub(super) fn has_room(&self) -> Result<(), Errno> {
        let room = self.0.len() < MAX_OPEN || self.0.iter().any(Option::is_none);
        if room { Ok(()) } else { Err(Errno::MFILE) }
    }

    /// The lowest free number, as POSIX has it.
    pub(super) fn open(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        if let Some((fd, slot)) = self.0.iter_mut().enumerate().find(|(_, slot)| slot.is_none()) {
            *slot = Some(descriptor);
            return Ok(fd as u32);
        }
        self.has_room()?;
        self.0.push(Some(descriptor));
        Ok(self.0.len() as u32 - 1)
    }

    fn take(&mut self, fd: u32) -> Result<Descriptor, Errno> {
        self.0.get_mut(fd as usize).and_then(Option::take).ok_or(Errno::BADF)
    }
}

impl Wasi {
    pub(super) fn fd_advise(&mut self, _: &mut Guest<'_>, fd: u32, _offset: u64, _len: u64, advice: u32) -> Answer {
        match self.descriptors.get(fd)?.kind {
            _ if advice > 5 => Err(Errno::INVAL.into()),
            Kind::File(_) => Ok(()),
            Kind::Dir(_) => Err(Errno::BADF.into()),
            _ => Err(Errno::SPIPE.into()),
        }
    }

    /// As wasmtime has it: there is no disk on which room could be kept.
    pub(super) fn fd_allocate(&mut self, _guest: &mut Guest<'_>, fd: u32, _offset: u64, _len: u64) -> Answer {
        self.descriptors.get(fd)?;
        Err(Errno::NOTSUP.into())
    }

    pub(super) fn fd_close(&mut self, _guest: &mut Guest<'_>, fd: u32) -> Answer {
        if let Some(node) = self.descriptors.take(fd)?.node() {
            self.files.closed(node);
        }
        Ok(())
    }

    pub(super) fn fd_datasync(&mut self, guest: &mut Guest<'_>, fd: u32) -> Answer {
        self.fd_sync(guest, fd)
    }

    pub(super) fn fd_sync(&mut self, _guest: &mut Guest<'_>, fd: u32) -> Answer {
        self.descriptors.get(fd)?;
        Ok(())
    }

    pub(super) fn fd_fdstat_get(&mut self, guest: &mut Guest<'_>, fd: u32, to: u32) -> Answer {
        let descriptor = self.descriptors.get(fd)?;
        let mut stat = vec![self.filetype(descriptor.kind), 0];
        stat.extend(descriptor.flags.to_le_bytes());
        stat.extend([0; 4]);
        stat.extend(descriptor.rights.to_le_bytes());
        stat.extend(descriptor.inheriting.to_le_bytes());
        guest.write(to, &stat)
    }

    pub(super) fn fd_fdstat_set_flags(&mut self, _guest: &mut Guest<'_>, fd: u32, flags: u32) -> Answer {
        let descriptor = self.descriptors.get_mut(fd)?;
        descriptor.flags = known_flags(flags)?;
        Ok(())
    }

    pub(super) fn fd_fdstat_set_rights(&mut self, _: &mut Guest<'_>, fd: u32, rights: u64, inheriting: u64) -> Answer {
        let descriptor = self.descriptors.get_mut(fd)?;
        if rights & !descriptor.rights != 0 || inheriting & !descriptor.inheriting != 0 {
            return Err(Errno::NOTCAPABLE.into());
        }
        (descriptor.rights, descriptor.inheriting) = (rights, inheriting);
        Ok(())
    }

    pub(super) fn fd_filestat_get(&mut self, guest: &mut Guest<'_>, fd: u32, to: u32) -> Answer {
        let descriptor = self.descriptors.get(fd)?;
        match descriptor.node() {
            Some(node) => self.write_filestat(guest, node, to),
            None => guest.write(to, &[0; 64]),
        }
    }

    pub(super) fn fd_filestat_set_size(&mut self, guest: &mut Guest<'_>, fd: u32, len: u64) -> Answer {
        let node = self.file(fd, rights::WRITE)?;
        self.files.resize(guest, node, len)?;
        self.modified(node)
    }

    pub(super) fn fd_filestat_set_times(
        &mut self,
        _guest: &mut Guest<'_>,
        fd: u32,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Answer {
        let node = self.descriptors.get(fd)?.node().ok_or(Errno::BADF)?;
        self.set_times(node, accessed, modified, flags)
    }

    pub(super) fn fd_prestat_get(&mut self, guest: &mut Guest<'_>, fd: u32, to: u32) -> Answer {
        if !self.descriptors.get(fd)?.preopened {
            return Err(Errno::BADF.into());
        }
        guest.write(to, &[0, 0, 0, 0, 1, 0, 0, 0])
    }

    pub(super) fn fd_prestat_dir_name(&mut self, guest: &mut Guest<'_>, fd: u32, to: u32, len: u32) -> Answer {
        if !self.descriptors.get(fd)?.preopened {
            return Err(Errno::BADF.into());
        }
        if len < 1 {
            return Err(Errno::NAMETOOLONG.into());
        }
        guest.write(to, b"/")
    }

    pub(super) fn fd_renumber(&mut self, guest: &mut Guest<'_>, from: u32, to: u32) -> Answer {
        self.descriptors.get(from)?;
        self.descriptors.get(to)?;
        if from == to {
            return Ok(());
        }
        self.fd_close(guest, to)?;
        let descriptor = self.descriptors.take(from)?;
        if let Some(slot) = self.descriptors.0.get_mut(to as usize) {
            *slot = Some(descriptor);
        }
        Ok(())
    }

    pub(super) fn fd_seek(&mut self, guest: &mut Guest<'_>, fd: u32, offset: u64, whence: u32, to: u32) -> Answer {
        guest.check(to, 8)?;
        let node = self.file(fd, 0)?;
        let descriptor = self.descriptors.get_mut(fd)?;
        let base = match whence {
            0 => 0,
            1 => descriptor.at,
            2 => self.files.node(node)?.size(),
            _ => return Err(Errno::INVAL.into()),
        };
        // The offset is signed.
        descriptor.at = base.checked_add_signed(offset.cast_signed()).ok_or(Errno::INVAL)?;
        guest.write_u64(to, descriptor.at)
    }

    pub(super) fn fd_tell(&mut self, guest: &mut Guest<'_>, fd: u32, to: u32) -> Answer {
        self.file(fd, 0)?;
        guest.write_u64(to, self.descriptors.get(fd)?.at)
    }

    pub(super) fn fd_readdir(
        &mut self,
        guest: &mut Guest<'_>,
        fd: u32,
        to: u32,
        len: u32,
        cookie: u64,
        used: u32,
    ) -> Answer {
        let dir = self.descriptors.dir(fd)?;
        guest.check(to, len)?;
        guest.check(used, 4)?;
        let parent = if dir == ROOT { ROOT } else { self.files.node(dir)?.parent };
        let entries = self.files.entries(dir)?;
        // Entries are found by counting, which is paid for.
        guest.charge(cookie.min(entries.len() as u64))?;
        let fixed = [(".", dir), ("..", parent)].into_iter();
        let named = entries.iter().map(|(name, node)| (name.as_str(), *node));
        let mut room = Piece { at: to, len };
        let skip = usize::try_from(cookie).unwrap_or(usize::MAX);
        for (next, (name, node)) in (cookie.saturating_add(1)..).zip(fixed.chain(named).skip(skip)) {
            let is_dir = self.files.node(node).is_ok_and(|node| node.is_dir());
            let mut entry = next.to_le_bytes().to_vec();
            entry.extend(node.inode().to_le_bytes());
            entry.extend((name.len() as u32).to_le_bytes());
            entry.extend([if is_dir { DIRECTORY } else { REGULAR }, 0, 0, 0]);
            entry.extend(name.as_bytes());
            // The last one is cut where the room ends, which tells that there are more.
            entry.truncate(room.len as usize);
            guest.write(room.at, &entry)?;
            room = Piece { at: room.at + entry.len() as u32, len: room.len - entry.len() as u32 };
            if room.len == 0 {
                break;
            }
        }
        guest.write_u32(used, len - room.len)
    }

    /// The file that `fd` is, if it has the rights.
    pub(super) fn file(&self, fd: u32, right: u64) -> Result<NodeId, Errno> {
        let descriptor = self.descriptors.get(fd)?;
        match descriptor.kind {
            Kind::File(node) => descriptor.may(right).map(|()| node),
            Kind::Dir(_) => Err(Errno::ISDIR),
            _ => Err(Errno::SPIPE),
        }
    }

    pub(super) fn filetype(&self, kind: Kind) -> u8 {
        match kind {
            Kind::Dir(_) => DIRECTORY,
            Kind::File(_) => REGULAR,
            _ => UNKNOWN,
        }
    }

    pub(super) fn modified(&mut self, node: NodeId) -> Answer {
        self.files.node_mut(node)?.modified = self.clock.real();
        Ok(())
    }

    pub(super) fn write_filestat(&self, guest: &mut Guest<'_>, id: NodeId, to: u32) -> Answer {
        let node = self.files.node(id)?;
        let filetype = if node.is_dir() { DIRECTORY } else { REGULAR };
        let numbers = [1, id.inode(), filetype.into(), 1, node.size(), node.accessed, node.modified, node.modified];
        let stat: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        guest.write(to, &stat)
    }

    /// `flags`: 1 and 4 set the time that is given, 2 and 8 set the present.
    pub(super) fn set_times(&mut self, node: NodeId, accessed: u64, modified: u64, flags: u32) -> Answer {
        if flags > 15 || flags & 3 == 3 || flags & 12 == 12 {
            return Err(Errno::INVAL.into());
        }
        let now = self.clock.real();
        let node = self.files.node_mut(node)?;
        if !node.writable {
            return Err(Errno::ROFS.into());
        }
        let time = |flags: u32, given: u64, old: u64| match flags & 3 {
            1 => given,
            2 => now,
            _ => old,
        };
        node.accessed = time(flags, accessed, node.accessed);
        node.modified = time(flags >> 2, modified, node.modified);
        Ok(())
    }
}

/// Flags of a descriptor that the witx names.
pub(super) fn known_flags(flags: u32) -> Result<u16, Errno> {
    u16::try_from(flags).ok().filter(|flags| flags & !KNOWN_FLAGS == 0).ok_or(Errno::INVAL)
}
