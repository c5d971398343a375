//! What /proc says about processes and threads, and signals to them.

use std::io;
use std::process::Command;

/// Microseconds in a clock tick of /proc (USER_HZ is 100 on Linux, whatever the kernel's own).
const TICK_US: f64 = 10_000.0;

/// User and system time in the text of a `/proc/../stat`, microseconds. `None`: it is another text.
#[must_use]
pub fn cpu_us(stat: &str) -> Option<f64> {
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th field after it.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((fields.next()?.ok()? + fields.next()?.ok()?) * TICK_US)
}

/// Sends a signal, named as `kill` takes it: `-STOP`, `-CONT`.
///
/// # Errors
/// If there is no such process, or no `kill`.
pub fn signal(pid: u32, name: &str) -> io::Result<()> {
    let done = Command::new("kill").args([name, &pid.to_string()]).status()?;
    if done.success() { Ok(()) } else { Err(io::Error::other(format!("kill {name} {pid} ended with {done}"))) }
}
