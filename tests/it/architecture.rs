//! The layer rules that the crate documentation states, held against the sources.

use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The files under `src` that say one of `words` outside comments, apart from those under `allowed`.
fn offenders(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "the sources are not where this test looks");
    let mut offenders = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        if allowed.iter().any(|prefix| name.starts_with(prefix)) || name.contains("test") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            if !line.trim_start().starts_with("//") && words.iter().any(|word| line.contains(word)) {
                offenders.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    offenders
}

#[test]
fn only_redis_says_fred() {
    assert_eq!(offenders(&["fred::", "use fred"], &["redis"]), Vec::<String>::new());
}

#[test]
fn only_upstream_the_provider_and_the_terminal_chat_call_http_services() {
    assert_eq!(
        offenders(
            &["reqwest::Client", "reqwest::get"],
            &["upstream", "gpt/provider", "cli/chat"]
        ),
        Vec::<String>::new()
    );
}

#[test]
fn only_config_reads_the_environment() {
    assert_eq!(offenders(&["env::var"], &["config"]), Vec::<String>::new());
}

#[test]
fn use_cases_know_neither_sockets_nor_http_servers() {
    let elsewhere = [
        "archive",
        "auth",
        "backend",
        "cli",
        "config",
        "demo",
        "gpt/scripted",
        "guard",
        "lib",
        "lifecycle",
        "main",
        "model",
    ];
    let mut allowed = vec![
        "node",
        "ops",
        "redis",
        "socket",
        "telemetry",
        "upstream",
        "web",
        "worker",
    ];
    allowed.extend(elsewhere);
    assert_eq!(
        offenders(&["socketioxide", "axum::", "hyper::"], &allowed),
        Vec::<String>::new()
    );
}

#[test]
fn only_reply_and_deliver_write_to_sockets() {
    let words = ["socket.emit(", "AckSender"];
    let allowed = ["socket/reply.rs", "cli/chat"];
    assert_eq!(offenders(&words, &allowed), Vec::<String>::new());
}

#[test]
fn no_file_is_too_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("loadtest/src"), &mut files);
    let long: Vec<_> = files
        .iter()
        .map(|file| {
            (
                file.display().to_string(),
                std::fs::read_to_string(file).unwrap().lines().count(),
            )
        })
        .filter(|(_, lines)| *lines > 500)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}
