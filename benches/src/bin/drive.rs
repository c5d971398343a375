//! `drive`: the load driver of the engine. See `pontoon_benches::drive`.
//!
//! Its nodes are this program, too, so the allocator is chosen here: that of `pontoon`, or one that counts its calls.

#[cfg(not(feature = "allocations"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(feature = "allocations")]
#[global_allocator]
static COUNTED: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

fn main() -> std::process::ExitCode {
    pontoon_benches::drive::main()
}
