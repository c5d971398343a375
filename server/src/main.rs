//! The binary: parse, call, map the error to an exit code.

fn main() -> std::process::ExitCode {
    pontoon_server::main()
}
