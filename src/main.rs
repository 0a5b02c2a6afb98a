//! Arguments → one role → exit code.

fn main() {}
