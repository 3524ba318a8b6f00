//! The seccomp filter.
//!
//! The filter lists what is refused, rather than what is allowed. It also applies to CNI plugins,
//! which are run for their version and are programs of others; it must work with two C libraries on
//! two architectures, and with a newer library that uses an unforeseen call. An incomplete list of
//! allowed calls ends a daemon in production; an incomplete list of refused calls leaves the rest
//! to the other layers. If a list of allowed calls is wanted as well, the systemd unit
//! (`@system-service`) and Kubernetes (`RuntimeDefault`) have one, maintained by people who follow
//! the kernel.
//!
//! Refused calls fail with EPERM, as without the privilege, so that no signal ends the process.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Never made by routelet, its libraries or a CNI plugin that reports its version.
const NEVER: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Namespaces and mounts.
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_mknodat,
    // The kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_personality,
    // Attack surface with a history of vulnerabilities.
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_vmsplice,
    // The machine's name and clock.
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
];

/// New namespaces, for `clone`.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Address families of the sockets that routelet and the C library open.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Requests that type into the terminal that a daemon was started from.
const TERMINAL: [u64; 2] = [0x5412 /* TIOCSTI */, 0x541c /* TIOCLINUX */];

/// Calls of the x32 interface of x86_64 are the same ones with this bit.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// The filter programs, to be applied in this order.
///
/// # Errors
///
/// On an architecture that seccomp does not support.
pub(super) fn programs() -> Result<[BpfProgram; 2], BackendError> {
    // The arguments of `clone3` are in memory that a filter cannot read. C libraries use `clone`
    // where the call does not exist.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok([program(refused()?, libc::EPERM)?, program(clone3, libc::ENOSYS)?])
}

fn program(rules: Rules, error: libc::c_int) -> Result<BpfProgram, BackendError> {
    #[cfg(target_arch = "x86_64")]
    let rules: Rules =
        rules.iter().flat_map(|(call, r)| [(*call, r.clone()), (call | X32, r.clone())]).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let error = SeccompAction::Errno(error.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, error, arch)?;
    filter.try_into()
}

fn refused() -> Result<Rules, BackendError> {
    let mut rules: Rules = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    let has = |arg, bits: libc::c_int| {
        let bits = u64::from(bits.unsigned_abs());
        all(vec![condition(arg, Op::MaskedEq(bits), bits)?])
    };
    let namespaces = NAMESPACES.iter().map(|flag| has(0, *flag)).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_clone, namespaces);
    let other = FAMILIES.iter().map(|family| condition(0, Op::Ne, u64::from(family.unsigned_abs())));
    rules.insert(libc::SYS_socket, vec![all(other.collect::<Result<_, _>>()?)?]);
    let requests = TERMINAL.iter().map(|request| all(vec![condition(1, Op::Eq, *request)?]));
    rules.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);
    // Memory is either code or data: exploits write it first and execute it afterwards.
    rules.insert(libc::SYS_mmap, vec![has(2, libc::PROT_WRITE | libc::PROT_EXEC)?]);
    rules.insert(libc::SYS_mprotect, vec![has(2, libc::PROT_EXEC)?]);
    rules.insert(libc::SYS_pkey_mprotect, vec![has(2, libc::PROT_EXEC)?]);
    Ok(rules)
}

fn condition(arg: u8, op: Op, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(arg, Len::Dword, op, value)
}

fn all(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_fits_the_kernel() {
        for program in programs().unwrap() {
            // BPF_MAXINSNS.
            assert!(program.len() < 4096, "{}", program.len());
        }
    }

    #[test]
    fn nothing_is_refused_that_the_daemon_or_a_plugin_needs() {
        let refused = refused().unwrap();
        for call in
            [libc::SYS_execve, libc::SYS_futex, libc::SYS_renameat, libc::SYS_sendmsg, libc::SYS_prlimit64]
        {
            assert!(!refused.contains_key(&call), "{call}");
        }
        // Refused for certain arguments only.
        for call in [libc::SYS_clone, libc::SYS_socket, libc::SYS_mmap, libc::SYS_ioctl] {
            assert!(!refused[&call].is_empty(), "{call}");
        }
    }
}
