//! Arguments → one role → exit code.

/// Gives memory back after a flood and wastes less of it; the system's kept up to a gigabyte after one. See docs/flood.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    roomcast::cli::main()
}
