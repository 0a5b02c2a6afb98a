//! What only a cluster has: its making, who owns what, and slots that move.

use super::TestRedis;

impl TestRedis {
    pub(super) async fn create_cluster(&self) {
        let addresses: Vec<String> = self
            .servers
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.port))
            .collect();
        let mut command = vec!["--cluster", "create"];
        command.extend(addresses.iter().map(String::as_str));
        command.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        let output = self.servers[0].cli(&command).await;
        assert!(
            output.iter().any(|line| line.contains("All 16384 slots covered")),
            "{output:?}"
        );
    }

    /// The primary that owns a key, by index.
    pub async fn primary_of(&self, key: &str) -> usize {
        for index in self.primaries().await {
            let answer = self.servers[index].cli(&["TYPE", key]).await;
            if !answer.concat().starts_with("MOVED") {
                return index;
            }
        }
        panic!("nobody owns {key}");
    }

    /// The replica of a primary, by index.
    pub async fn replica_of(&self, primary: usize) -> usize {
        let port = self.servers[primary].port.to_string();
        for (index, server) in self.servers.iter().enumerate() {
            let role = server.cli(&["ROLE"]).await;
            if role.first().is_some_and(|role| role == "slave") && role[2] == port {
                return index;
            }
        }
        panic!("{port} has no replica");
    }

    /// Moves a key's slot to another primary, as a reshard does.
    pub async fn move_slot_of(&self, key: &str, to: usize) {
        let from = self.primary_of(key).await;
        assert_ne!(from, to);
        let slot = self.cli_of(from, &["CLUSTER", "KEYSLOT", key]).await.concat();
        let (from_id, to_id) = (self.id_of(from).await, self.id_of(to).await);
        let port = self.servers[to].port.to_string();
        let set_slot = async |server: usize, state: &[&str]| {
            let command = [&["CLUSTER", "SETSLOT", &slot], state].concat();
            assert_eq!(self.cli_of(server, &command).await, ["OK"]);
        };
        set_slot(to, &["IMPORTING", &from_id]).await;
        set_slot(from, &["MIGRATING", &to_id]).await;
        loop {
            let keys = self.cli_of(from, &["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).await;
            if keys.is_empty() {
                break;
            }
            let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            command.extend(keys.iter().map(String::as_str));
            // NOKEY: expired meanwhile.
            let answer = self.cli_of(from, &command).await.concat();
            assert!(["OK", "NOKEY"].contains(&answer.as_str()), "{answer}");
        }
        let mut primaries = self.primaries().await;
        // The new owner first, so that the slot is never without one.
        primaries.sort_by_key(|server| *server != to);
        for server in primaries {
            set_slot(server, &["NODE", &to_id]).await;
        }
    }

    async fn id_of(&self, server: usize) -> String {
        self.cli_of(server, &["CLUSTER", "MYID"]).await.concat()
    }
}
