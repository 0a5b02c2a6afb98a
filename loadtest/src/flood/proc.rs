//! What the system tells of a process and of its cores.

use std::io;

/// Clock ticks a second in `/proc`: the same on every Linux that we know.
const TICKS: f64 = 100.0;

/// Memory of a process in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub rss: u64,
    /// The most that ever was resident.
    pub peak: u64,
}

/// The memory of a process.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse_memory(&status).ok_or_else(|| io::Error::other(format!("/proc/{pid}/status names no memory")))
}

fn parse_memory(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some(Memory {
        rss: field("VmRSS:")?,
        peak: field("VmHWM:")?,
    })
}

/// What several processes have used together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    /// Seconds of processor time.
    pub cpu: f64,
    /// Resident memory, MiB.
    pub mib: f64,
}

/// What these processes have used.
pub fn used(pids: &[u32]) -> io::Result<Used> {
    let mut all = Used::default();
    for pid in pids {
        all.cpu += cpu_seconds(*pid)?;
        all.mib += memory(*pid)?.rss as f64 / 1024.0;
    }
    Ok(all)
}

/// Seconds of processor time that a process has used.
pub fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_cpu(&stat).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not readable")))
}

fn parse_cpu(stat: &str) -> Option<f64> {
    // The name before the last bracket may hold anything.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) as f64 / TICKS)
}

/// The last core that this process may run on.
pub fn last_core() -> io::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    parse_last_core(&status).ok_or_else(|| io::Error::other("/proc/self/status names no core; use --core"))
}

fn parse_last_core(status: &str) -> Option<usize> {
    let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:"))?;
    line.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_cores_are_found() {
        let status = "Name:\tx\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\nCpus_allowed_list:\t0-1,4-7\n";
        assert_eq!(parse_memory(status), Some(Memory { rss: 200, peak: 300 }));
        assert_eq!(parse_last_core(status), Some(7));
        assert_eq!(parse_last_core("Cpus_allowed_list:\t0\n"), Some(0));
    }

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(parse_cpu(stat), Some(2.0));
    }
}
