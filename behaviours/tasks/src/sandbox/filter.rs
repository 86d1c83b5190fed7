//! The calls of the system that a task process makes once it is set up: memory, waiting, the clock, and what is read and written on what is
//! open. The kernel refuses all others: nothing of the host can be opened, connected to or started, even by code that got out of the module.

use std::collections::BTreeMap;

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
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// With these as an argument alone, by its place: a signal to itself (`abort`), a seal on a file in memory, a thread's name.
fn allowed_with() -> [(i64, u8, Vec<u64>); 3] {
    [
        (libc::SYS_tgkill, 0, vec![u64::from(std::process::id())]),
        (libc::SYS_fcntl, 1, [libc::F_ADD_SEALS, libc::F_GETFD, libc::F_GETFL].map(|command| command as u64).to_vec()),
        (libc::SYS_prctl, 0, vec![libc::PR_SET_NAME as u64]),
    ]
}

/// Holds all threads of this process to them. What is refused fails with `EPERM`.
pub(super) fn apply() -> Result<(), Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    for (call, place, values) in allowed_with() {
        let rule = |value| SeccompRule::new(vec![SeccompCondition::new(place, Len::Dword, Op::Eq, value)?]);
        rules.insert(call, values.into_iter().map(rule).collect::<Result<_, _>>()?);
    }
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter_all_threads(&program)?)
}
