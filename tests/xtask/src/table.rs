//! Samples as a line of a table.

/// The head of the table that [`row`] fills.
pub(crate) fn head(unit: &str) -> String {
    format!("{:<52} {:>5} {:>8} {:>8} {:>8} {:>8}", unit, "n", "min", "p50", "p95", "max")
}

/// One line: how many samples, their least, median, 95th percentile and greatest.
pub(crate) fn row(name: &str, samples: &[f64]) -> String {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some((least, greatest)) = sorted.first().zip(sorted.last()) else {
        return format!("{name:<52} {:>5}", 0);
    };
    let (median, high) = (percentile(&sorted, 50), percentile(&sorted, 95));
    format!("{name:<52} {:>5} {least:>8.1} {median:>8.1} {high:>8.1} {greatest:>8.1}", sorted.len())
}

/// The least sample that at least `percent` of all are not above (the nearest-rank definition).
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!((percentile(&samples, 50), percentile(&samples, 95)), (10.0, 19.0));
        assert_eq!((percentile(&[7.0], 50), percentile(&[7.0], 95)), (7.0, 7.0));
    }

    #[test]
    fn a_row_of_nothing_has_no_figures() {
        assert!(row("none", &[]).trim_end().ends_with('0'));
    }
}
