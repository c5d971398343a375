//! `drive`: the load driver of the engine. See `pontoon_benches::drive`.

fn main() -> std::process::ExitCode {
    pontoon_benches::drive::main()
}
