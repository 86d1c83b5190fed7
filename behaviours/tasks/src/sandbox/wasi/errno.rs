//! The error numbers of WASI preview 1 that are used here (`wasi_snapshot_preview1.witx`, `errno`).

/// What a function answers when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u16);

impl Errno {
    /// A descriptor that is not open.
    pub const BADF: Self = Self(8);
    /// It exists already.
    pub const EXIST: Self = Self(20);
    /// A pointer outside of the memory.
    pub const FAULT: Self = Self(21);
    /// Text that is not UTF-8.
    pub const ILSEQ: Self = Self(25);
    /// An argument that has no meaning.
    pub const INVAL: Self = Self(28);
    /// A directory, where a file is needed.
    pub const ISDIR: Self = Self(31);
    /// Too many open descriptors.
    pub const MFILE: Self = Self(33);
    /// A name or a path that is too long, or too deep.
    pub const NAMETOOLONG: Self = Self(37);
    /// No such file or directory.
    pub const NOENT: Self = Self(44);
    /// Too many files.
    pub const NOSPC: Self = Self(51);
    /// Neither a directory nor below one.
    pub const NOTDIR: Self = Self(54);
    /// A directory that has entries.
    pub const NOTEMPTY: Self = Self(55);
    /// No socket: there are none.
    pub const NOTSOCK: Self = Self(57);
    /// What this host never does.
    pub const NOTSUP: Self = Self(58);
    /// A number that does not fit.
    pub const OVERFLOW: Self = Self(61);
    /// What cannot be changed.
    pub const ROFS: Self = Self(69);
    /// A stream has no position.
    pub const SPIPE: Self = Self(70);
    /// A path that leads out of its directory, or a descriptor without the right.
    pub const NOTCAPABLE: Self = Self(76);
}
