//! Arguments → one role → exit code.

fn main() -> std::process::ExitCode {
    roomcast::cli::main()
}
