//! What the operating system says of this process, by the names that all programs have for it.

use std::{fs, path::Path, sync::atomic::AtomicU64};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

/// What the operating system says of this process; zero where it says nothing.
#[derive(Debug, Default)]
pub(in crate::status) struct ProcessUse {
    resident_bytes: u64,
    open_files: u64,
    open_files_max: u64,
    cpu_s: f64,
}

impl ProcessUse {
    pub(in crate::status) fn now() -> Self {
        let of = |file: &str| fs::read_to_string(Path::new("/proc/self").join(file)).unwrap_or_default();
        Self {
            resident_bytes: resident(&of("status")).unwrap_or(0),
            open_files: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            open_files_max: limit(&of("limits")).unwrap_or(0),
            cpu_s: ticks(&of("stat")).unwrap_or(0.0) / rustix::param::clock_ticks_per_second() as f64,
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let gauge = |value: u64| {
            let gauge = Gauge::<u64, AtomicU64>::default();
            gauge.set(value);
            gauge
        };
        let resident = gauge(self.resident_bytes);
        registry.register_with_unit("process_resident_memory", "Resident memory", Unit::Bytes, resident);
        registry.register("process_open_fds", "Open file descriptors", gauge(self.open_files));
        registry.register("process_max_fds", "File descriptors that may be open", gauge(self.open_files_max));
        let cpu = Counter::<f64, AtomicU64>::default();
        cpu.inc_by(self.cpu_s);
        registry.register_with_unit("process_cpu", "Processor time that was used", Unit::Seconds, cpu);
    }
}

/// Of proc_pid_status(5): `VmRSS` in kB, which are KiB.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Of proc_pid_limits(5): the soft limit of open files.
fn limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Of proc_pid_stat(5): time in user and in kernel mode, the 14th and 15th field. The second one may have spaces in it.
fn ticks(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_manual() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(
            limit("Limit Soft Hard Units\nMax open files            1024                 4096                 files\n"),
            Some(1024)
        );
        assert_eq!(ticks("7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0"), Some(300.0));
        assert_eq!((resident(""), limit(""), ticks("")), (None, None, None));
    }
}
