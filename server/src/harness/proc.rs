//! What /proc says about processes and threads.

/// Microseconds in a clock tick of /proc (USER_HZ is 100 on Linux, whatever the kernel's own).
const TICK_US: f64 = 10_000.0;

/// User and system time in the text of a `/proc/../stat`, microseconds. `None`: it is another text.
#[must_use]
pub fn cpu_us(stat: &str) -> Option<f64> {
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th field after it.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((fields.next()?.ok()? + fields.next()?.ok()?) * TICK_US)
}
