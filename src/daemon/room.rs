//! Determines the memory limit, and how much of it routes may use.
//!
//! The limit is that of the cgroup, of either version and at any depth, or the machine's memory. A
//! cgroup limit is dedicated to routelet, so routes may use all of it except a base; of a machine's
//! memory, which is shared, routes may use at most a quarter.

use std::path::Path;

use crate::config::Config;

const MIB: u64 = 1024 * 1024;

/// Memory of the daemon without routes: itself, the view of a cluster, buffers of sessions,
/// responses, and a command that runs in the same container.
const BASE: u64 = 32 * MIB;

/// Octets per prefix for the default of `max-prefixes`: an IPv4 route with its share of an
/// attribute set, advertised to other neighbors.
const PER_PREFIX: u64 = 400;

/// Maximum default of `max-prefixes`, if there is enough memory.
const MAX_DEFAULT: u64 = 1_000_000;

/// The memory limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Limit of the cgroup.
    Group(u64),
    /// Memory of the machine.
    Machine(u64),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whose, octets) = match self {
            Self::Group(octets) => ("cgroup", octets),
            Self::Machine(octets) => ("machine", octets),
        };
        write!(f, "{} MiB ({whose})", octets >> 20)
    }
}

impl Limit {
    /// Reads the limit; 1 GiB if it cannot be read.
    pub(super) fn read() -> Self {
        limit(&|path| std::fs::read_to_string(path).ok())
    }

    /// Octets that all routes may use.
    pub(super) fn budget(self) -> u64 {
        match self {
            Self::Group(octets) => {
                let others = BASE.max(octets / 4).min(octets / 2);
                // An eighth is reserved for fragmentation.
                (octets - others) / 8 * 7
            }
            Self::Machine(octets) => octets / 4,
        }
    }

    /// The default of `max-prefixes`, in whole thousands, so that it is the same at the next start.
    pub(super) fn max_prefixes(self) -> u32 {
        let fits = self.budget() / PER_PREFIX / 1000 * 1000;
        u32::try_from(fits.clamp(1000, MAX_DEFAULT)).unwrap_or(u32::MAX)
    }

    /// Sets the default in a configuration without the key.
    pub(super) fn complete(self, config: &mut Config) {
        config.bgp.defaults.max_prefixes.get_or_insert(self.max_prefixes());
    }
}

fn limit(read: &dyn Fn(&Path) -> Option<String>) -> Limit {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| mem_total(&text)).unwrap_or(1024 * MIB);
    match group_limit(read).filter(|group| *group < machine) {
        Some(group) => Limit::Group(group),
        None => Limit::Machine(machine),
    }
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The lowest limit of the own cgroup and its visible parents.
fn group_limit(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let own = read(Path::new("/proc/self/cgroup"))?;
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    let limits = mounts.lines().filter_map(Mount::parse).filter_map(|mount| {
        let path = own.lines().find_map(|line| mount.path_in(line))?;
        mount.limit(path, read)
    });
    limits.min()
}

/// A mounted hierarchy of cgroups with the memory controller.
struct Mount<'a> {
    unified: bool,
    /// The cgroup at the mount point.
    root: &'a str,
    point: &'a str,
}

impl<'a> Mount<'a> {
    /// A line of mountinfo (proc(5)).
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        match kind {
            "cgroup2" => Some(Self { unified: true, root, point }),
            "cgroup" if options.split(',').any(|o| o == "memory") => {
                Some(Self { unified: false, root, point })
            }
            _ => None,
        }
    }

    /// The path in a line of /proc/self/cgroup, `id:controllers:path`, if it is of this hierarchy.
    fn path_in<'l>(&self, line: &'l str) -> Option<&'l str> {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match self.unified {
            true => id == "0" && controllers.is_empty(),
            false => controllers.split(',').any(|c| c == "memory"),
        };
        ours.then_some(path)
    }

    /// The lowest limit from the own cgroup up to the mount point.
    fn limit(&self, path: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
        let point = Path::new(self.point);
        // The mount may start below the root of the hierarchy, and in a cgroup namespace the path
        // may lead out of it: then only the mount point is visible.
        let below = Path::new(path).strip_prefix(self.root).ok().filter(|_| !path.contains(".."));
        let own = below.map_or_else(|| point.to_owned(), |below| point.join(below));
        let folders = own.ancestors().take_while(|folder| folder.starts_with(point));
        let limits = folders.flat_map(|folder| {
            let number = |file: &str| read(&folder.join(file))?.trim().parse::<u64>().ok();
            match self.unified {
                true => [number("memory.max"), number("memory.high")],
                // Includes limits of parents that are not visible.
                false => [
                    number("memory.limit_in_bytes"),
                    read(&folder.join("memory.stat")).and_then(|s| hierarchical(&s)),
                ],
            }
        });
        limits.flatten().filter(|limit| *limit > 0).min()
    }
}

fn hierarchical(stat: &str) -> Option<u64> {
    stat.lines().find_map(|l| l.strip_prefix("hierarchical_memory_limit "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn limit_of(files: &[(&str, &str)]) -> Limit {
        let files: BTreeMap<_, _> =
            files.iter().map(|(path, text)| (Path::new(path), (*text).to_owned())).collect();
        limit(&|path| files.get(path).cloned())
    }

    const MEMINFO: (&str, &str) = ("/proc/meminfo", "MemTotal:        8000000 kB\nMemFree:          1 kB\n");
    const MACHINE: Limit = Limit::Machine(8_000_000 * 1024);
    const V2: (&str, &str) =
        ("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
    const V1: (&str, &str) = (
        "/proc/self/mountinfo",
        "22 1 0:20 / /proc rw - proc proc rw\n31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
         33 23 0:29 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
         34 23 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    );

    #[test]
    fn the_lowest_limit_of_all_parent_groups_counts() {
        let pod = ("/proc/self/cgroup", "0::/kubepods/pod1/c1\n");
        let at = |path: &'static str, text: &'static str| (path, text);
        #[rustfmt::skip]
        let cases: &[(&str, &[(&str, &str)], Limit)] = &[
            ("nothing", &[], Limit::Machine(1024 * MIB)),
            ("a machine", &[MEMINFO], MACHINE),
            ("v2, none", &[MEMINFO, V2, pod, at("/sys/fs/cgroup/kubepods/pod1/c1/memory.max", "max\n")], MACHINE),
            ("v2, own", &[MEMINFO, V2, pod, at("/sys/fs/cgroup/kubepods/pod1/c1/memory.max", "67108864\n")], Limit::Group(64 * MIB)),
            ("v2, one above", &[MEMINFO, V2, pod, at("/sys/fs/cgroup/kubepods/pod1/c1/memory.max", "max\n"),
                at("/sys/fs/cgroup/kubepods/memory.max", "134217728\n")], Limit::Group(128 * MIB)),
            ("v2, the lower of two", &[MEMINFO, V2, pod, at("/sys/fs/cgroup/kubepods/pod1/c1/memory.max", "134217728"),
                at("/sys/fs/cgroup/kubepods/memory.max", "67108864\n")], Limit::Group(64 * MIB)),
            ("v2, throttled", &[MEMINFO, V2, pod, at("/sys/fs/cgroup/kubepods/pod1/c1/memory.max", "134217728"),
                at("/sys/fs/cgroup/kubepods/pod1/c1/memory.high", "67108864\n")], Limit::Group(64 * MIB)),
            ("v2, namespace", &[MEMINFO, V2, at("/proc/self/cgroup", "0::/\n"), at("/sys/fs/cgroup/memory.max", "67108864\n")],
                Limit::Group(64 * MIB)),
            ("v2, outside of the namespace", &[MEMINFO, V2, at("/proc/self/cgroup", "0::/../other\n"),
                at("/sys/fs/cgroup/memory.max", "67108864\n")], Limit::Group(64 * MIB)),
            ("v2, more than there is", &[MEMINFO, V2, pod, at("/sys/fs/cgroup/kubepods/pod1/c1/memory.max", "99999999999\n")], MACHINE),
            ("v1, own", &[MEMINFO, V1, at("/proc/self/cgroup", "5:cpu:/x\n4:memory:/a/b\n0::/\n"),
                at("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "67108864\n")], Limit::Group(64 * MIB)),
            ("v1, one above", &[MEMINFO, V1, at("/proc/self/cgroup", "4:memory:/a/b\n0::/\n"),
                at("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"),
                at("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "67108864\n")], Limit::Group(64 * MIB)),
            ("v1, above what is seen", &[MEMINFO, at("/proc/self/mountinfo",
                "33 23 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"),
                at("/proc/self/cgroup", "4:memory:/docker/abc\n"),
                at("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                at("/sys/fs/cgroup/memory/memory.stat", "cache 1\nhierarchical_memory_limit 67108864\n")], Limit::Group(64 * MIB)),
            ("v1, none", &[MEMINFO, V1, at("/proc/self/cgroup", "4:memory:/a\n"),
                at("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n")], MACHINE),
        ];
        for (name, files, expected) in cases {
            assert_eq!(limit_of(files), *expected, "{name}");
        }
    }

    /// The table of docs/operating.md.
    #[test]
    fn the_default_follows_from_the_memory() {
        let rows = [
            (Limit::Group(32 * MIB), 14, 36_000),
            (Limit::Group(64 * MIB), 28, 73_000),
            (Limit::Group(128 * MIB), 84, 220_000),
            (Limit::Group(256 * MIB), 168, 440_000),
            (Limit::Group(512 * MIB), 336, 880_000),
            (Limit::Group(1024 * MIB), 672, 1_000_000),
            (Limit::Machine(1024 * MIB), 256, 671_000),
            (Limit::Machine(16 * 1024 * MIB), 4096, 1_000_000),
            (Limit::Group(1), 0, 1000),
        ];
        for (limit, budget, prefixes) in rows {
            assert_eq!((limit.budget() / MIB, limit.max_prefixes()), (budget, prefixes), "{limit:?}");
        }
    }

    #[test]
    fn a_configured_value_is_kept() {
        let mut config = Config::default();
        Limit::Group(64 * MIB).complete(&mut config);
        assert_eq!(config.bgp.defaults.max_prefixes, Some(73_000));
        config.bgp.defaults.max_prefixes = Some(5);
        Limit::Group(64 * MIB).complete(&mut config);
        assert_eq!(config.bgp.defaults.max_prefixes, Some(5));
    }
}
