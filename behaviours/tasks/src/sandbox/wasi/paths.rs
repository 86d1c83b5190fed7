//! Functions that take a path. A path is relative to a directory that is open, and never leads out of it.

use super::{
    Answer, Errno, Fault, Guest, Wasi,
    descriptors::{Descriptor, Kind, known_flags, rights},
    files::{NodeId, Place},
};

const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;

impl Wasi {
    pub(super) fn path_create_directory(&mut self, guest: &mut Guest<'_>, fd: u32, path: u32, len: u32) -> Answer {
        let place = self.place(guest, fd, path, len)?;
        self.files.create(&place, true, self.clock.real())?;
        self.modified(place.dir)
    }

    pub(super) fn path_filestat_get(
        &mut self,
        guest: &mut Guest<'_>,
        fd: u32,
        _follow: u32,
        path: u32,
        len: u32,
        to: u32,
    ) -> Answer {
        let node = self.existing(guest, fd, path, len)?;
        self.write_filestat(guest, node, to)
    }

    #[expect(clippy::too_many_arguments, reason = "as the interface has it")]
    pub(super) fn path_filestat_set_times(
        &mut self,
        guest: &mut Guest<'_>,
        fd: u32,
        _follow: u32,
        path: u32,
        len: u32,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Answer {
        let node = self.existing(guest, fd, path, len)?;
        self.set_times(node, accessed, modified, flags)
    }

    #[expect(clippy::too_many_arguments, reason = "as the interface has it")]
    pub(super) fn path_link(
        &mut self,
        _guest: &mut Guest<'_>,
        from: u32,
        _follow: u32,
        _path: u32,
        _len: u32,
        to: u32,
        _new: u32,
        _new_len: u32,
    ) -> Answer {
        self.descriptors.dir(from)?;
        self.descriptors.dir(to)?;
        Err(Errno::NOTSUP.into())
    }

    #[expect(clippy::too_many_arguments, reason = "as the interface has it")]
    pub(super) fn path_open(
        &mut self,
        guest: &mut Guest<'_>,
        fd: u32,
        _follow: u32,
        path: u32,
        len: u32,
        how: u32,
        rights: u64,
        inheriting: u64,
        flags: u32,
        to: u32,
    ) -> Answer {
        guest.check(to, 4)?;
        let flags = known_flags(flags)?;
        if how > 15 {
            return Err(Errno::INVAL.into());
        }
        let dir = self.descriptors.get(fd)?;
        if (rights | inheriting) & !dir.inheriting != 0 {
            return Err(Errno::NOTCAPABLE.into());
        }
        let place = self.place(guest, fd, path, len)?;
        self.descriptors.has_room()?;
        let node = match place.node {
            Some(_) if how & (CREATE | EXCLUSIVE) == CREATE | EXCLUSIVE => return Err(Errno::EXIST.into()),
            Some(node) => node,
            None if how & CREATE == 0 => return Err(Errno::NOENT.into()),
            None if how & DIRECTORY != 0 => return Err(Errno::INVAL.into()),
            None => {
                let node = self.files.create(&place, false, self.clock.real())?;
                self.modified(place.dir)?;
                node
            }
        };
        let found = self.files.node(node)?;
        if !found.is_dir() && (how & DIRECTORY != 0 || place.must_be_dir) {
            return Err(Errno::NOTDIR.into());
        }
        let descriptor = if found.is_dir() {
            if how & TRUNCATE != 0 {
                return Err(Errno::ISDIR.into());
            }
            Descriptor::new(Kind::Dir(node), flags, rights & !(rights::READ | rights::WRITE), inheriting)
        } else {
            let writes = rights & rights::WRITE != 0 || how & TRUNCATE != 0;
            if writes && !found.writable {
                return Err(Errno::ROFS.into());
            }
            if how & TRUNCATE != 0 {
                self.files.resize(guest, node, 0)?;
                self.modified(node)?;
            }
            Descriptor::new(Kind::File(node), flags, rights, inheriting)
        };
        let fd = self.descriptors.open(descriptor)?;
        self.files.opened(node)?;
        guest.write_u32(to, fd)
    }

    /// There are no symbolic links.
    #[expect(clippy::too_many_arguments, reason = "as the interface has it")]
    pub(super) fn path_readlink(
        &mut self,
        guest: &mut Guest<'_>,
        fd: u32,
        path: u32,
        len: u32,
        _to: u32,
        _room: u32,
        _used: u32,
    ) -> Answer {
        self.existing(guest, fd, path, len)?;
        Err(Errno::INVAL.into())
    }

    pub(super) fn path_remove_directory(&mut self, guest: &mut Guest<'_>, fd: u32, path: u32, len: u32) -> Answer {
        let place = self.place(guest, fd, path, len)?;
        self.files.remove(&place, true)?;
        self.modified(place.dir)
    }

    #[expect(clippy::too_many_arguments, reason = "as the interface has it")]
    pub(super) fn path_rename(
        &mut self,
        guest: &mut Guest<'_>,
        fd: u32,
        path: u32,
        len: u32,
        new_fd: u32,
        new: u32,
        new_len: u32,
    ) -> Answer {
        let old = self.place(guest, fd, path, len)?;
        let new = self.place(guest, new_fd, new, new_len)?;
        self.files.rename(guest, &old, &new)?;
        self.modified(old.dir)?;
        self.modified(new.dir)
    }

    pub(super) fn path_symlink(
        &mut self,
        _guest: &mut Guest<'_>,
        _target: u32,
        _target_len: u32,
        fd: u32,
        _path: u32,
        _len: u32,
    ) -> Answer {
        self.descriptors.dir(fd)?;
        Err(Errno::NOTSUP.into())
    }

    pub(super) fn path_unlink_file(&mut self, guest: &mut Guest<'_>, fd: u32, path: u32, len: u32) -> Answer {
        let place = self.place(guest, fd, path, len)?;
        self.files.remove(&place, false)?;
        self.modified(place.dir)
    }

    fn place(&self, guest: &mut Guest<'_>, fd: u32, path: u32, len: u32) -> Result<Place, Fault> {
        self.files.resolve(guest, self.descriptors.dir(fd)?, path, len)
    }

    fn existing(&self, guest: &mut Guest<'_>, fd: u32, path: u32, len: u32) -> Result<NodeId, Fault> {
        let place = self.place(guest, fd, path, len)?;
        let node = place.node.ok_or(Errno::NOENT)?;
        if place.must_be_dir && !self.files.node(node)?.is_dir() {
            return Err(Errno::NOTDIR.into());
        }
        Ok(node)
    }
}
