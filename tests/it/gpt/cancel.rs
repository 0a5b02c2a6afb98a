//! Questions that are taken back, wherever they are on their way.

use roomcast_load::client::Client;
use serde_json::{Value, json};

use super::crashes::{Victim, patient};
use super::{ask, error, idle, member, model, pieces, reply, world};
use crate::support::{TestRedis, Topology, World};

async fn cancel(client: &Client, id: &str) -> Value {
    let payload = json!({"roomID": "room-0", "id": id});
    client.emit_ack("gpt:cancel", &payload).await.unwrap()[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn question_that_no_worker_has_taken_in_can_be_cancelled() {
    let (world, model, _none) = world(0, &[]).await;
    let (asker, other) = (member(&world, 0, 0).await, member(&world, 1, 4).await);
    let first = ask(&asker, "id first, who is there").await;
    let second = ask(&asker, "id second, is anybody there").await;
    assert_eq!(cancel(&other, &first).await["code"], "not_author");
    assert_eq!(cancel(&asker, &first).await["ok"], true);
    assert_eq!(error(&other, &first).await["code"], "cancelled");
    assert_eq!(cancel(&asker, &first).await["code"], "not_found");
    assert_eq!(cancel(&asker, "1-1-r").await["code"], "not_found");
    let _worker = world.worker().await;
    reply(&other, &second).await;
    idle(&world).await;
    assert_eq!((model.calls("first"), model.calls("second")), (0, 1));
    assert_eq!(other.take("gpt:error"), Vec::<Vec<Value>>::new(), "a second end");
    assert_eq!(cancel(&asker, &second).await["code"], "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancellation_outlives_the_worker_that_was_told_of_it() {
    let (model, url) = model().await;
    let redis = TestRedis::start_as(Topology::Standalone).await;
    let world = World::on(redis, 2, &[("GPT_BASE_URL", url.as_str())]).await;
    let mut victim = Victim::start(&world, world.redis.port(), &url);
    let (asker, reader) = (patient(&world, 0, 0).await, patient(&world, 1, 4).await);
    let words = "one two three four five six seven eight nine ten";
    let id = ask(&asker, &format!("id q, slow 300 ms, {words}")).await;
    asker.expect("gpt:delta").await.unwrap();
    victim.signal("STOP").await;
    assert_eq!(cancel(&asker, &id).await["ok"], true);
    victim.kill().await;
    let _second = world.worker().await;
    let message = reply(&reader, &id).await;
    assert_eq!(message["cancelled"], true, "{message}");
    assert_eq!(pieces(&reader, &id), message["message"].as_str().unwrap());
    assert_eq!(model.calls("q"), 1, "the model was asked again");
    idle(&world).await;
    let next = ask(&asker, "who is next").await;
    reply(&reader, &next).await;
    assert_eq!(reader.take("gpt:error"), Vec::<Vec<Value>>::new(), "a second end");
    assert_eq!(reader.take("gpt:reset"), Vec::<Vec<Value>>::new(), "it began anew");
}
