//! The binary: parse, call, map the error to an exit code.

// A command's payload is taken on the caller's thread and given back on a poller's; the C library's arenas make both wait for a lock.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    pontoon_server::main()
}
