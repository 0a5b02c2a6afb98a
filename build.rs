//! Embeds what `make client` has put into `src/web/vendor`; without it everything builds, and the page says so.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    // The folder, not the files: they may not be there yet, and cargo would then run this at every build.
    println!("cargo::rerun-if-changed=src/web");
    let root = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let out = env::var_os("OUT_DIR").unwrap_or_default();
    let vendor = Path::new(&root).join("src/web/vendor");
    let mut scripts = Vec::new();
    collect(&vendor, &mut scripts)?;
    scripts.sort();
    let mut table = String::from("[\n");
    for script in &scripts {
        let path = script.strip_prefix(&vendor).unwrap_or(script).display().to_string();
        let file = script.display().to_string();
        let _ = writeln!(
            table,
            "({:?}, include_bytes!({file:?}).as_slice()),",
            format!("/vendor/{path}")
        );
    }
    table.push(']');
    fs::write(Path::new(&out).join("vendor.rs"), table)
}

/// Every script below a folder that may be missing.
fn collect(folder: &Path, scripts: &mut Vec<PathBuf>) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, scripts)?;
        } else if path.extension().is_some_and(|extension| extension == "js") {
            scripts.push(path);
        }
    }
    Ok(())
}
