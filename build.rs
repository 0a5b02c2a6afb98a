//! Embeds the official Socket.IO client where `make client` has put it; without it everything builds, and the page says so.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    // The folder, not the file: the file may not be there yet, and cargo would then run this at every build.
    println!("cargo::rerun-if-changed=src/web");
    let root = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let out = env::var_os("OUT_DIR").unwrap_or_default();
    let client = fs::read(Path::new(&root).join("src/web/vendor/socket.io.js")).unwrap_or_default();
    fs::write(Path::new(&out).join("socket.io.js"), client)
}
