//! Enters the sandbox.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "io")]

pub mod calls;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    path::PathBuf,
};

use caps::{CapSet, CapsHashSet};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::sys::prctl;

use super::{Access, Capability, Demand, Rule, SandboxView, rules::SYSCTLS};

/// The rights that Landlock restricts; a kernel that knows fewer restricts those.
const RIGHTS: ABI = ABI::V5;

/// Why a step of the sandbox is not in force.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("{unrestricted} of {all} are not restricted")]
    Threads { unrestricted: usize, all: usize },
    #[error(transparent)]
    Prctl(#[from] nix::Error),
    #[error(transparent)]
    Capabilities(#[from] caps::errors::CapsError),
    #[error(transparent)]
    Files(#[from] landlock::RulesetError),
    #[error("{}: {error}", .path.display())]
    Path { path: PathBuf, error: landlock::RulesetError },
    #[error("not in this kernel; Linux 5.13 and later has it, with `lsm=landlock,...` at boot")]
    NoLandlock,
    #[error(transparent)]
    Calls(#[from] seccompiler::Error),
}

/// Keeps rules in force that end together with the object that they are attached to.
#[derive(Debug)]
pub struct Held {
    /// The kernel forgets an entry of `/proc/sys` that is not open, together with its rule.
    _sysctls: Option<File>,
}

/// Gives up all rights outside of `demand` and `keep`, for this thread and those that it starts.
/// Must be called while there is one thread. Failed steps are in the view and the log; the others
/// are in force.
pub fn enter(demand: &Demand, keep: &[Capability]) -> (SandboxView, Held) {
    let held = Held { _sysctls: File::open(SYSCTLS).ok() };
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    let alone = match threads {
        1 => Ok(()),
        all => Err(StepError::Threads { unrestricted: all - 1, all }),
    };
    // Capabilities first, since dropping them needs one; seccomp last.
    let steps = [
        ("threads", alone),
        ("core dumps", prctl::set_dumpable(false).map_err(StepError::from)),
        ("capabilities", restrict_capabilities(keep)),
        ("no_new_privs", prctl::set_no_new_privs().map_err(StepError::from)),
        ("landlock", restrict_files(&demand.rules())),
        ("seccomp", restrict_calls()),
    ];
    let landlock = steps.iter().any(|(what, result)| *what == "landlock" && result.is_ok());
    let missing = steps.into_iter().filter_map(|(what, result)| Some(format!("{what}: {}", result.err()?)));
    (SandboxView { enabled: true, landlock, missing: missing.collect(), ..look() }, held)
}

/// The restrictions of this thread, as the kernel shows them.
pub fn look() -> SandboxView {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    let mut capabilities: Vec<_> = effective.iter().map(ToString::to_string).collect();
    capabilities.sort();
    SandboxView {
        enabled: false,
        user: nix::unistd::geteuid().as_raw(),
        capabilities,
        no_new_privileges: field("NoNewPrivs") == "1",
        seccomp: field("Seccomp") == "2",
        landlock: false,
        missing: Vec::new(),
    }
}

/// Leaves `keep` in the effective and the permitted set, nothing in the inheritable and the ambient
/// one.
fn restrict_capabilities(keep: &[Capability]) -> Result<(), StepError> {
    let wanted: CapsHashSet = keep.iter().map(|capability| number(*capability)).collect();
    let bounding = caps::read(None, CapSet::Bounding)?;
    // Without CAP_SETPCAP the bounding set stays as it is: with no_new_privs programs gain nothing
    // by it.
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap_or(false) {
        for capability in bounding.difference(&wanted) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    let has: CapsHashSet = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = has.intersection(&wanted).copied().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(())
}

fn number(capability: Capability) -> caps::Capability {
    match capability {
        Capability::NetAdmin => caps::Capability::CAP_NET_ADMIN,
        Capability::NetBindService => caps::Capability::CAP_NET_BIND_SERVICE,
        Capability::NetRaw => caps::Capability::CAP_NET_RAW,
        Capability::SysNice => caps::Capability::CAP_SYS_NICE,
    }
}

fn restrict_files(rules: &[Rule]) -> Result<(), StepError> {
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(RIGHTS))?;
    // No signals to other processes: root without capabilities could still end those of root.
    let mut ruleset = ruleset.scope(Scope::Signal)?.create()?;
    for rule in rules {
        ruleset = add(ruleset, rule)?;
    }
    let status = ruleset.restrict_self()?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(StepError::NoLandlock),
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}

/// If nothing exists at the path, there is nothing to allow.
fn add(ruleset: RulesetCreated, rule: &Rule) -> Result<RulesetCreated, StepError> {
    let opened = rule.candidates().find_map(|path| Some((PathFd::new(path).ok()?, path.is_dir())));
    let Some((folder, is_folder)) = opened else {
        tracing::debug!(path = %rule.path.display(), "path does not exist, so it will stay inaccessible");
        return Ok(ruleset);
    };
    let mut rights = rights(rule.access);
    if !is_folder {
        rights &= AccessFs::from_file(RIGHTS);
    }
    let added = ruleset.add_rule(PathBeneath::new(folder, rights));
    added.map_err(|error| StepError::Path { path: rule.path.clone(), error })
}

fn rights(access: Access) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    match access {
        Access::Read => read,
        Access::Execute => read | AccessFs::Execute,
        Access::Overwrite => read | AccessFs::WriteFile | AccessFs::Truncate,
        Access::Socket => read | AccessFs::MakeSock | AccessFs::RemoveFile,
        Access::Write => {
            let files = AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::WriteFile | AccessFs::Truncate;
            read | files | AccessFs::MakeDir | AccessFs::Refer
        }
    }
}

fn restrict_calls() -> Result<(), StepError> {
    for program in calls::programs().map_err(seccompiler::Error::from)? {
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}
