//! A real HAProxy and a real nginx in front of a node, forwarding in every way that a deployment may.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::redis::free_port;
use super::until;

/// From where the proxies connect to the node: what `TRUSTED_PROXIES` declares.
pub const PROXIES: &str = "127.0.9.0/24";
/// HAProxy's address there.
const HAPROXY: &str = "127.0.9.1";
/// nginx's.
const NGINX: &str = "127.0.9.2";
/// The request header by which HAProxy is told the address of a client of the proxy before it.
pub const CLIENT_BEFORE: &str = "x-client-before";

/// A way to the node.
#[derive(Clone)]
pub struct Route {
    pub name: &'static str,
    pub url: String,
    /// Whether HAProxy takes the client's address from [`CLIENT_BEFORE`] here.
    pub has_client_before: bool,
    /// Whether the node gets a PROXY header.
    pub sends_proxy_header: bool,
}

/// Both proxies; they end with the test.
pub struct Proxies {
    pub routes: Vec<Route>,
    _children: [Child; 2],
    _folder: tempfile::TempDir,
}

impl Proxies {
    /// Starts both and waits until every route is open.
    pub async fn start(node: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ports = Vec::new();
        while ports.len() < 13 {
            let port = free_port().await;
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        let (haproxy, nginx) = (folder.path().join("haproxy.cfg"), folder.path().join("nginx.conf"));
        std::fs::write(&haproxy, haproxy_config(node, &ports)).unwrap();
        std::fs::write(&nginx, nginx_config(node, &ports, folder.path())).unwrap();
        let children = [
            spawn(program("haproxy").arg("-db").arg("-f").arg(&haproxy)),
            spawn(program("nginx").arg("-p").arg(folder.path()).arg("-c").arg(&nginx)),
        ];
        for port in &ports {
            until("both proxies listen", Duration::from_secs(10), || async {
                TcpStream::connect(("127.0.0.1", *port)).await.is_ok()
            })
            .await;
        }
        let names = [
            "HAProxy appends a line",
            "HAProxy appends a line with a port",
            "HAProxy forwards TCP with PROXY v1",
            "HAProxy forwards TCP with PROXY v2",
            "HAProxy appends a line and sends PROXY v2",
            "HAProxy, then nginx, each appends",
            "nginx appends, then HAProxy sends PROXY v2",
            "HAProxy sends PROXY v2 to nginx, which appends",
            "nginx appends to the line",
            "nginx replaces the lines",
            "nginx forwards TCP with PROXY v1",
            "HAProxy appends the client before it",
            "HAProxy sends the client before it by PROXY v2",
        ];
        let route = |(name, port): (&'static str, &u16)| Route {
            name,
            url: format!("http://127.0.0.1:{port}"),
            has_client_before: name.contains("client before"),
            sends_proxy_header: name.contains("PROXY v") && !name.contains("to nginx"),
        };
        Self {
            // The order of the ports in both configurations.
            routes: names.into_iter().zip(&ports).map(route).collect(),
            _children: children,
            _folder: folder,
        }
    }
}

/// A server program; the path of an ordinary user does not name their folder everywhere.
fn program(name: &str) -> Command {
    let path = Path::new("/usr/sbin").join(name);
    Command::new(if path.exists() { path } else { name.into() })
}

fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; .ci/packages installs it"))
}

fn haproxy_config(node: SocketAddr, ports: &[u16]) -> String {
    let listen = |port: usize, lines: &str| {
        let port = ports[port];
        format!(
            "listen port_{port}\n  bind 127.0.0.1:{port}\n  {}\n",
            lines.replace("; ", "\n  ")
        )
    };
    let (append, nginx_appends, nginx_takes_proxy) = ("mode http; option forwardfor", ports[8], ports[7] + 10_000);
    let before = format!("mode http; http-request set-src hdr({CLIENT_BEFORE})");
    [
        "global\n  nbthread 1\n  maxconn 500\n".to_owned(),
        "defaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n".to_owned(),
        format!("  source {HAPROXY}\n"),
        listen(0, &format!("{append}; server node {node}")),
        listen(
            1,
            &format!("mode http; http-request add-header X-Forwarded-For %[src]:%[src_port]; server node {node}"),
        ),
        listen(2, &format!("mode tcp; server node {node} send-proxy")),
        listen(3, &format!("mode tcp; server node {node} send-proxy-v2")),
        listen(4, &format!("{append}; server node {node} send-proxy-v2")),
        listen(5, &format!("{append}; server nginx 127.0.0.1:{nginx_appends}")),
        // Port 6 is nginx's; this is where it goes on.
        format!(
            "listen after_nginx\n  bind 127.0.0.1:{}\n  mode tcp\n  server node {node} send-proxy-v2\n",
            ports[6] + 10_000
        ),
        listen(
            7,
            &format!("mode tcp; server nginx 127.0.0.1:{nginx_takes_proxy} send-proxy-v2"),
        ),
        listen(11, &format!("{before}; option forwardfor; server node {node}")),
        listen(12, &format!("{before}; server node {node} send-proxy-v2")),
    ]
    .concat()
}

fn nginx_config(node: SocketAddr, ports: &[u16], folder: &Path) -> String {
    let folder = folder.display();
    let server = |listen: String, forwarded: &str, to: String| {
        format!(
            "  server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass http://{to};
    proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade; proxy_set_header X-Forwarded-For {forwarded}; }} }}\n"
        )
    };
    let append = "$proxy_add_x_forwarded_for";
    let module = stream_module().map_or_else(String::new, |path| format!("load_module {};\n", path.display()));
    [
        module,
        // One process, which ends when it is killed.
        format!("daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"),
        "events { worker_connections 500; }\nhttp {\n  access_log off;\n".to_owned(),
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
            .concat(),
        "  map $http_upgrade $connection_upgrade { default upgrade; '' close; }\n".to_owned(),
        format!("  proxy_bind {NGINX};\n"),
        server(ports[6].to_string(), append, format!("127.0.0.1:{}", ports[6] + 10_000)),
        server(
            format!("{} proxy_protocol", ports[7] + 10_000),
            "\"$http_x_forwarded_for, $proxy_protocol_addr\"",
            node.to_string(),
        ),
        server(ports[8].to_string(), append, node.to_string()),
        server(ports[9].to_string(), "$remote_addr", node.to_string()),
        "}\n".to_owned(),
        format!(
            "stream {{ server {{ listen 127.0.0.1:{}; proxy_pass {node}; proxy_bind {NGINX}; proxy_protocol on; }} }}\n",
            ports[10]
        ),
    ]
    .concat()
}

/// Where distributions put nginx's stream module; some build it in.
fn stream_module() -> Option<PathBuf> {
    [
        "/usr/lib/nginx/modules",
        "/usr/lib64/nginx/modules",
        "/usr/share/nginx/modules",
    ]
    .map(|folder| Path::new(folder).join("ngx_stream_module.so"))
    .into_iter()
    .find(|path| path.exists())
}
