//! Bytes that reach the device for each byte of payload, in the state that lasts: every log was truncated once everywhere.
//!
//! Leaves to others: the point itself (`run`). Invariant: as for a point.

use super::Failure;
use super::options::{DeviceOptions, FloorOptions, LoadOptions, MachineName, PointOptions, Setup};
use super::report::{self, Gate};
use super::run;

/// With one hot group, and with many.
const GATES: [f64; 2] = [1.5, 3.0];

/// `drive device`.
pub(crate) fn run(options: &DeviceOptions) -> Result<(), Failure> {
    let DeviceOptions { cluster, inflight, bytes, seconds, json } = options;
    let setup = Setup {
        cluster: cluster.clone(),
        load: LoadOptions { inflight: *inflight, bytes: *bytes, reads: 0.0, zipf: None },
        machine: MachineName::Count,
        json: json.clone(),
    };
    let floor = FloorOptions { floor: None };
    let point =
        run::measure(&PointOptions { setup, open_loop: None, seconds: *seconds, after_truncation: true, floor })?;
    report::header();
    report::row(&point);
    let (measured, bound) = (point.device_bytes_per_payload_byte, GATES[usize::from(cluster.groups > 1)]);
    report::gates(&[Gate::new(
        "device bytes per payload byte",
        format!("{measured:.2} (<= {bound})"),
        measured <= bound,
    )]);
    json.as_ref().map_or(Ok(()), |path| report::json(path, &point))
}
