//! The table of the functions, and how each is given to wasmtime. One list makes both, so that what is linked is what is tested.

use wasmtime::{Caller, Linker};

use super::{Answer, CALL_FUEL, Errno, Fault, Guest, MODULE, Stop, Wasi};

/// What the state of a store must give to the functions.
pub trait Hosted: 'static {
    /// The system of this run.
    fn wasi(&mut self) -> &mut Wasi;
    /// The memory that the module exports, once it is known.
    fn memory(&mut self) -> &mut Option<Memory>;
    /// A function has ended the run: why.
    fn stopped(&mut self, stop: Stop);
}

/// Where a module's memory is.
pub type Memory = wasmtime::Memory;

/// A function ended the run.
#[derive(Debug, thiserror::Error)]
#[error("the run has ended")]
struct Ended;

/// A function as tests call it: any arguments, cut to their types.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// How many arguments it takes.
    pub arguments: usize,
    call: fn(&mut Wasi, &mut Guest<'_>, &[u64]) -> Answer,
}

impl Function {
    /// Calls it as a module would; `arguments` that are missing are 0.
    pub fn call(&self, wasi: &mut Wasi, guest: &mut Guest<'_>, arguments: &[u64]) -> Answer {
        guest.charge(CALL_FUEL)?;
        (self.call)(wasi, guest, arguments)
    }
}

macro_rules! functions {
    ($($name:ident($($argument:ident: $kind:ident),*);)* - $end:ident($code:ident: u32);) => {
        /// Every function of the interface.
        pub const FUNCTIONS: &[Function] = &[
            $(functions!(@row $name($($argument: $kind),*)),)*
            functions!(@row $end($code: u32)),
        ];

        /// Gives every function to the modules that are linked with `linker`.
        pub fn link<T: Hosted>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
            $(linker.func_wrap(MODULE, stringify!($name), |caller: Caller<'_, T>, $($argument: $kind),*| {
                enter(caller, |wasi, guest| wasi.$name(guest, $($argument),*))
            })?;)*
            // It answers nothing, as it does not return.
            linker.func_wrap(MODULE, stringify!($end), |caller: Caller<'_, T>, $code: u32| {
                enter(caller, |wasi, guest| wasi.$end(guest, $code)).map(|_| ())
            })?;
            Ok(())
        }
    };
    (@row $name:ident($($argument:ident: $kind:ident),*)) => {
        Function {
            name: stringify!($name),
            arguments: <[&str]>::len(&[$(stringify!($argument)),*]),
            call: |wasi, guest, _given| {
                let mut _rest = _given.iter().copied();
                $(let $argument = _rest.next().unwrap_or_default() as $kind;)*
                wasi.$name(guest, $($argument),*)
            },
        }
    };
}

functions! {
    args_get(pointers: u32, to: u32);
    args_sizes_get(count: u32, bytes: u32);
    clock_res_get(id: u32, resolution: u32);
    clock_time_get(id: u32, precision: u64, time: u32);
    environ_get(pointers: u32, to: u32);
    environ_sizes_get(count: u32, bytes: u32);
    fd_advise(fd: u32, offset: u64, len: u64, advice: u32);
    fd_allocate(fd: u32, offset: u64, len: u64);
    fd_close(fd: u32);
    fd_datasync(fd: u32);
    fd_fdstat_get(fd: u32, to: u32);
    fd_fdstat_set_flags(fd: u32, flags: u32);
    fd_fdstat_set_rights(fd: u32, rights: u64, inheriting: u64);
    fd_filestat_get(fd: u32, to: u32);
    fd_filestat_set_size(fd: u32, len: u64);
    fd_filestat_set_times(fd: u32, accessed: u64, modified: u64, flags: u32);
    fd_pread(fd: u32, vectors: u32, count: u32, offset: u64, read: u32);
    fd_prestat_dir_name(fd: u32, to: u32, len: u32);
    fd_prestat_get(fd: u32, to: u32);
    fd_pwrite(fd: u32, vectors: u32, count: u32, offset: u64, wrote: u32);
    fd_read(fd: u32, vectors: u32, count: u32, read: u32);
    fd_readdir(fd: u32, to: u32, len: u32, cookie: u64, used: u32);
    fd_renumber(from: u32, to: u32);
    fd_seek(fd: u32, offset: u64, whence: u32, to: u32);
    fd_sync(fd: u32);
    fd_tell(fd: u32, to: u32);
    fd_write(fd: u32, vectors: u32, count: u32, wrote: u32);
    path_create_directory(fd: u32, path: u32, len: u32);
    path_filestat_get(fd: u32, follow: u32, path: u32, len: u32, to: u32);
    path_filestat_set_times(fd: u32, follow: u32, path: u32, len: u32, accessed: u64, modified: u64, flags: u32);
    path_link(from: u32, follow: u32, path: u32, len: u32, to: u32, new: u32, new_len: u32);
    path_open(
        fd: u32, follow: u32, path: u32, len: u32, how: u32, rights: u64, inheriting: u64, flags: u32, to: u32
    );
    path_readlink(fd: u32, path: u32, len: u32, to: u32, room: u32, used: u32);
    path_remove_directory(fd: u32, path: u32, len: u32);
    path_rename(fd: u32, path: u32, len: u32, new_fd: u32, new: u32, new_len: u32);
    path_symlink(target: u32, target_len: u32, fd: u32, path: u32, len: u32);
    path_unlink_file(fd: u32, path: u32, len: u32);
    poll_oneoff(from: u32, to: u32, count: u32, events: u32);
    proc_raise(signal: u32);
    random_get(at: u32, len: u32);
    sched_yield();
    sock_accept(fd: u32, flags: u32, to: u32);
    sock_recv(fd: u32, vectors: u32, count: u32, flags: u32, read: u32, out_flags: u32);
    sock_send(fd: u32, vectors: u32, count: u32, flags: u32, sent: u32);
    sock_shutdown(fd: u32, how: u32);
    - proc_exit(code: u32);
}

fn enter<T: Hosted>(
    mut caller: Caller<'_, T>,
    call: impl FnOnce(&mut Wasi, &mut Guest<'_>) -> Answer,
) -> wasmtime::Result<u32> {
    let known = *caller.data_mut().memory();
    let memory = known.or_else(|| caller.get_export("memory").and_then(wasmtime::Extern::into_memory));
    let mut fuel = caller.get_fuel()?;
    let answer = {
        let (bytes, state) = match &memory {
            Some(memory) => memory.data_and_store_mut(&mut caller),
            None => (&mut [][..], caller.data_mut()),
        };
        *state.memory() = memory;
        let mut guest = Guest { memory: bytes, fuel: &mut fuel };
        guest.charge(CALL_FUEL).map_err(Fault::from).and_then(|()| call(state.wasi(), &mut guest))
    };
    caller.set_fuel(fuel)?;
    match answer {
        Ok(()) => Ok(0),
        Err(Fault::Errno(Errno(code))) => Ok(code.into()),
        Err(Fault::Stop(stop)) => {
            caller.data_mut().stopped(stop);
            Err(wasmtime::Error::new(Ended))
        }
    }
}
