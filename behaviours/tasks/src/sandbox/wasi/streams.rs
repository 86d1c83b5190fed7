//! Reading and writing of descriptors, and what a program is started with.

use std::sync::Arc;

use super::{
    Answer, Errno, Fault, Guest, Stop, Stream, Wasi,
    descriptors::{APPEND, Kind, rights},
    guest::{Piece, scatter},
};

impl Wasi {
    pub(super) fn args_get(&mut self, guest: &mut Guest<'_>, pointers: u32, to: u32) -> Answer {
        write_strings(guest, pointers, to, self.args.iter().map(|arg| [arg.as_str(), "", ""]))
    }

    pub(super) fn args_sizes_get(&mut self, guest: &mut Guest<'_>, count: u32, bytes: u32) -> Answer {
        guest.write_u32(count, self.args.len() as u32)?;
        guest.write_u32(bytes, self.args.iter().map(|arg| arg.len() as u32 + 1).sum())
    }

    pub(super) fn environ_get(&mut self, guest: &mut Guest<'_>, pointers: u32, to: u32) -> Answer {
        write_strings(guest, pointers, to, self.env.iter().map(|(name, value)| [name.as_str(), "=", value.as_str()]))
    }

    pub(super) fn environ_sizes_get(&mut self, guest: &mut Guest<'_>, count: u32, bytes: u32) -> Answer {
        guest.write_u32(count, self.env.len() as u32)?;
        guest.write_u32(bytes, self.env.iter().map(|(name, value)| (name.len() + value.len() + 2) as u32).sum())
    }

    pub(super) fn fd_read(&mut self, guest: &mut Guest<'_>, fd: u32, vectors: u32, count: u32, read: u32) -> Answer {
        let descriptor = *self.descriptors.get(fd)?;
        descriptor.may(rights::READ)?;
        let pieces = pieces(guest, vectors, count, read)?;
        let copied = match descriptor.kind {
            Kind::Stdin => {
                let stdin = Arc::clone(&self.stdin);
                let at = usize::try_from(descriptor.at).unwrap_or(usize::MAX);
                scatter(guest, &pieces, stdin.get(at..).unwrap_or_default())?
            }
            Kind::File(node) => scatter(guest, &pieces, self.files.read_at(node, descriptor.at)?)?,
            Kind::Dir(_) => return Err(Errno::ISDIR.into()),
            Kind::Stdout | Kind::Stderr => return Err(Errno::BADF.into()),
        };
        self.descriptors.get_mut(fd)?.at += u64::from(copied);
        guest.write_u32(read, copied)
    }

    pub(super) fn fd_pread(
        &mut self,
        guest: &mut Guest<'_>,
        fd: u32,
        vectors: u32,
        count: u32,
        offset: u64,
        read: u32,
    ) -> Answer {
        let node = self.file(fd, rights::READ)?;
        let pieces = pieces(guest, vectors, count, read)?;
        let copied = scatter(guest, &pieces, self.files.read_at(node, offset)?)?;
        guest.write_u32(read, copied)
    }

    pub(super) fn fd_write(&mut self, guest: &mut Guest<'_>, fd: u32, vectors: u32, count: u32, wrote: u32) -> Answer {
        let descriptor = *self.descriptors.get(fd)?;
        descriptor.may(rights::WRITE)?;
        let pieces = pieces(guest, vectors, count, wrote)?;
        let total = match descriptor.kind {
            Kind::Stdout => self.print(guest, Stream::Out, &pieces)?,
            Kind::Stderr => self.print(guest, Stream::Err, &pieces)?,
            Kind::File(node) => {
                let end = self.files.node(node)?.size();
                let at = if descriptor.flags & APPEND == 0 { descriptor.at } else { end };
                let total = self.write_pieces(guest, fd, &pieces, at)?;
                self.descriptors.get_mut(fd)?.at = at + u64::from(total);
                total
            }
            Kind::Dir(_) => return Err(Errno::ISDIR.into()),
            Kind::Stdin => return Err(Errno::BADF.into()),
        };
        guest.write_u32(wrote, total)
    }

    pub(super) fn fd_pwrite(
        &mut self,
        guest: &mut Guest<'_>,
        fd: u32,
        vectors: u32,
        count: u32,
        offset: u64,
        wrote: u32,
    ) -> Answer {
        self.file(fd, rights::WRITE)?;
        let pieces = pieces(guest, vectors, count, wrote)?;
        let total = self.write_pieces(guest, fd, &pieces, offset)?;
        guest.write_u32(wrote, total)
    }

    /// What reading now would give, for a poll.
    pub(super) fn readable(&self, fd: u32) -> Result<u64, Errno> {
        let descriptor = self.descriptors.get(fd)?;
        let size = match descriptor.kind {
            Kind::Stdin => self.stdin.len() as u64,
            Kind::File(node) => self.files.node(node)?.size(),
            _ => 0,
        };
        Ok(size.saturating_sub(descriptor.at))
    }

    fn write_pieces(&mut self, guest: &mut Guest<'_>, fd: u32, pieces: &[Piece], at: u64) -> Result<u32, Fault> {
        let node = self.file(fd, rights::WRITE)?;
        let mut total = 0u32;
        for piece in pieces {
            let at = at.checked_add(total.into()).ok_or(Errno::INVAL)?;
            self.files.write_at(guest, node, at, (piece.at, piece.len))?;
            total += piece.len;
        }
        self.modified(node)?;
        Ok(total)
    }

    /// A call that would exceed the limit writes nothing.
    fn print(&mut self, guest: &mut Guest<'_>, stream: Stream, pieces: &[Piece]) -> Result<u32, Fault> {
        let total: u32 = pieces.iter().map(|piece| piece.len).sum();
        let sink = match stream {
            Stream::Out => &mut self.stdout,
            Stream::Err => &mut self.stderr,
        };
        if sink.len() as u64 + u64::from(total) > self.output_bytes {
            return Err(Stop::OutputLimit.into());
        }
        let before = sink.len();
        for piece in pieces {
            sink.extend_from_slice(guest.read(piece.at, piece.len)?);
        }
        if let Some(new) = sink.get(before..).filter(|new| !new.is_empty()) {
            (self.log)(stream, new);
        }
        Ok(total)
    }

    pub(super) fn sock_accept(&mut self, _guest: &mut Guest<'_>, fd: u32, _flags: u32, _to: u32) -> Answer {
        self.no_socket(fd)
    }

    #[expect(clippy::too_many_arguments, reason = "as the interface has it")]
    pub(super) fn sock_recv(
        &mut self,
        _guest: &mut Guest<'_>,
        fd: u32,
        _vectors: u32,
        _count: u32,
        _flags: u32,
        _read: u32,
        _out_flags: u32,
    ) -> Answer {
        self.no_socket(fd)
    }

    pub(super) fn sock_send(
        &mut self,
        _guest: &mut Guest<'_>,
        fd: u32,
        _vectors: u32,
        _count: u32,
        _flags: u32,
        _sent: u32,
    ) -> Answer {
        self.no_socket(fd)
    }

    pub(super) fn sock_shutdown(&mut self, _guest: &mut Guest<'_>, fd: u32, _how: u32) -> Answer {
        self.no_socket(fd)
    }

    fn no_socket(&self, fd: u32) -> Answer {
        self.descriptors.get(fd)?;
        Err(Errno::NOTSOCK.into())
    }
}

/// The pieces of memory that a call moves, once it is known that their sum can be told.
fn pieces(guest: &mut Guest<'_>, vectors: u32, count: u32, sum: u32) -> Result<Vec<Piece>, Fault> {
    guest.check(sum, 4)?;
    guest.pieces(vectors, count)
}

/// A list of texts, each with a zero behind it, and a pointer to each.
fn write_strings<'a>(
    guest: &mut Guest<'_>,
    mut pointers: u32,
    mut to: u32,
    texts: impl Iterator<Item = [&'a str; 3]>,
) -> Answer {
    for parts in texts {
        guest.write_u32(pointers, to)?;
        pointers = pointers.checked_add(4).ok_or(Errno::FAULT)?;
        for part in parts.iter().map(|part| part.as_bytes()).chain([&b"\0"[..]]) {
            guest.write(to, part)?;
            to = to.checked_add(part.len() as u32).ok_or(Errno::FAULT)?;
        }
    }
    Ok(())
}
