//! The calls of the system that a task process makes once it is set up: memory, waiting, the clock, what its parent says, and what it answers.
//! The kernel refuses all others: nothing of the host can be opened, connected to or started, even by code that got out of the module.

use std::{collections::BTreeMap, fs, path::Path};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};

type Error = Box<dyn std::error::Error>;

/// Whatever their arguments.
const ALLOWED: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
];

/// Standard input, output and errors.
const STREAMS: u64 = 3;
/// Advice from here on takes memory from the whole host (`MADV_HWPOISON`).
const ADVICE: u64 = 100;

/// An argument, by its place, of which the kernel reads 32 bits.
fn argument(place: u8, is: Op, value: u64) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(place, Len::Dword, is, value)?)
}

/// A call is allowed if one of these holds.
fn any(conditions: impl IntoIterator<Item = Result<SeccompCondition, Error>>) -> Result<Vec<SeccompRule>, Error> {
    conditions.into_iter().map(|condition| Ok(SeccompRule::new(vec![condition?])?)).collect()
}

/// Calls with arguments that are looked at.
fn conditional() -> Result<Vec<(i64, Vec<SeccompRule>)>, Error> {
    let seals = [libc::F_ADD_SEALS, libc::F_GETFD, libc::F_GETFL].map(|command| argument(1, Op::Eq, command as u64));
    // It writes to its parent and to files in memory, and maps those; not what the node was given by whoever started it. Where that cannot be
    // listed nothing is known of it.
    let inherited = inherited().unwrap_or_default();
    let none_of =
        |place| inherited.iter().map(move |file| argument(place, Op::Ne, *file)).collect::<Result<Vec<_>, _>>();
    let written = if inherited.is_empty() { Vec::new() } else { vec![SeccompRule::new(none_of(0)?)?] };
    // What is mapped shared, and stacks that grow, are not held to the memory that it is given.
    let kinds = (libc::MAP_TYPE | libc::MAP_GROWSDOWN) as u64;
    let mut mapped = none_of(4)?;
    mapped.push(argument(3, Op::MaskedEq(kinds), libc::MAP_PRIVATE as u64)?);
    Ok(vec![
        (libc::SYS_fcntl, any(seals)?),
        (libc::SYS_madvise, any([argument(2, Op::Lt, ADVICE)])?),
        (libc::SYS_mmap, vec![SeccompRule::new(mapped)?]),
        // A thread's name.
        (libc::SYS_prctl, any([argument(0, Op::Eq, libc::PR_SET_NAME as u64)])?),
        (libc::SYS_read, any([argument(0, Op::Eq, 0)])?),
        // `abort`.
        (libc::SYS_tgkill, any([argument(0, Op::Eq, std::process::id().into())])?),
        (libc::SYS_write, written.clone()),
        (libc::SYS_writev, written),
    ])
}

/// What is open beside the streams.
fn inherited() -> Result<Vec<u64>, Error> {
    let open = Path::new("/proc/self/fd");
    let names: Vec<_> = fs::read_dir(open)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>()?;
    // Not what was open to read this.
    let names = names.into_iter().filter(|name| open.join(name).symlink_metadata().is_ok());
    let numbers = names.filter_map(|name| name.to_str()?.parse().ok());
    Ok(numbers.filter(|number| *number >= STREAMS).collect())
}

/// Holds all threads of this process to them. What is refused fails with `EPERM`.
pub(super) fn apply() -> Result<(), Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    rules.extend(conditional()?);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter_all_threads(&program)?)
}
