//! The machine, and what Linux tells of a process.

use std::fs;

/// Processor, cores, memory and system in one line.
pub(crate) fn line() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&cpuinfo, "model name").unwrap_or("an unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, |count| count.get());
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = field(&meminfo, "MemTotal").and_then(kilobytes).unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim();
    format!("{model}, {cores} cores, {:.1} GB, Linux {kernel}", memory as f64 / 1e6)
}

/// How busy the machine is with other things: the load of the last minute.
pub(crate) fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Highest resident memory of a process so far, in MB.
pub(crate) fn peak_rss_mb(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(kilobytes(field(&status, "VmHWM")?)? as f64 / 1e3)
}

/// Resident memory of a process, in kB.
pub(crate) fn rss_kb(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(kilobytes(field(&status, "VmRSS")?)? as f64)
}

/// Seconds that a process has computed, in its own code and in the kernel.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    /// Fixed in Linux's interface, whatever the kernel counts in.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may have spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((fields.next()?.ok()? + fields.next()?.ok()?) / TICKS_PER_SECOND)
}

/// The value of `name` in a file of `name: value` lines.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn kilobytes(value: &str) -> Option<u64> {
    value.strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_found() {
        let status = "Name:\tcauserie\nVmPeak:\t  900 kB\nVmHWM:\t  123456 kB\n";
        assert_eq!(field(status, "VmHWM").and_then(kilobytes), Some(123_456));
        assert_eq!(field(status, "VmSwap"), None);
    }
}
