"""Drives the whole event table with python-socketio, an independent client, against `roomcast demo`.

    python tests/python/smoke.py target/debug/roomcast

Exits 1 at the first answer that is not what the contract says. Nothing stays behind.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys

import aiohttp
import socketio

PATIENCE = 10  # seconds; longer than any answer on two busy cores
USER_AGENT = "Mozilla/5.0 python-socketio"


def check(holds, what, *seen):
    if not holds:
        raise AssertionError(f"{what}: {seen}")


class Client:
    """One connection that keeps every event until it is asked for."""

    def __init__(self, login, proto=None):
        self.login = login
        self.auth = {
            "accessToken": login["accessToken"],
            "refreshToken": login["refreshToken"],
            "userAgent": USER_AGENT,
            "username": login["user"]["username"],
        }
        if proto:
            self.auth["proto"] = proto
        self.sio = socketio.AsyncClient(reconnection=False)
        self.queues = {}
        self.sio.on("*", self.keep)

    async def keep(self, event, *args):
        self.queue(event).put_nowait(args)

    def queue(self, event):
        return self.queues.setdefault(event, asyncio.Queue())

    async def connect(self, url, transport):
        await self.sio.connect(url, auth=self.auth, transports=[transport], wait_timeout=PATIENCE)
        check(self.sio.transport() == transport, "transport", self.sio.transport())
        return self

    async def call(self, event, payload=None):
        return await self.sio.call(event, payload, timeout=PATIENCE)

    async def done(self, event, payload=None):
        ack = await self.call(event, payload)
        check(ack["ok"] is True, event, payload, ack)
        return ack

    async def refused(self, code, event, payload):
        ack = await self.call(event, payload)
        check(ack.get("code") == code and ack["message"], f"{event} refused as {code}", ack)

    async def expect(self, event, fits=lambda *args: True):
        async with asyncio.timeout(PATIENCE):
            while True:
                args = await self.queue(event).get()
                if fits(*args):
                    return args


async def post(http, url, body):
    async with http.post(url, json=body) as answer:
        check(answer.status in (200, 201), url, answer.status, await answer.text())
        return await answer.json()


async def table(http, nodes, backend, transport):
    """Every event once, over one transport, with the two people on two nodes."""
    room = f"smoke-{transport}"
    ann, bob = [await post(http, f"{backend}/login", {"username": f"{name}-{transport}"}) for name in ("ann", "bob")]
    people = [{"platformid": who["user"]["platformid"], "nickname": who["user"]["username"]} for who in (ann, bob)]
    created_at = 1_700_000_000_000
    await post(
        http,
        f"{backend}/api/rooms/create-room",
        {"roomID": room, "createdAt": created_at, "owner": people[0]["platformid"], "participants": people},
    )
    a = await Client(ann).connect(nodes[0], transport)
    b = await Client(bob, proto=2).connect(nodes[-1], transport)
    try:
        # join, roomUpdate, previousMessages
        await a.done("join", {"roomID": room, "createdAt": created_at})
        (previous,) = await a.expect("previousMessages")
        check(previous == [], "an empty room", previous)
        await b.done("join", {"roomID": room})
        previous, info = await b.expect("previousMessages")
        check(info["roomID"] == room and {"epoch", "topSeq", "recovered", "more"} <= info.keys(), "info", info)
        (update,) = await a.expect("roomUpdate", lambda update: update["roomID"] == room)
        names = {person["nickname"] for person in update["participants"]}
        check(names == {person["nickname"] for person in people}, "participants", update)
        await a.refused("not_member", "join", {"roomID": "room-0"})

        # message
        stored = await b.done("message", {"roomID": room, "message": "hello", "cid": "c1", "colour": "blue", "timestamp": 5})
        (message,) = await a.expect("message")
        wanted = {"id": stored["id"], "seq": stored["seq"], "epoch": stored["epoch"], "ts": stored["ts"], "kind": "message"}
        wanted |= {"roomID": room, "message": "hello", "colour": "blue", "clientTimestamp": 5, "cid": "c1"}
        wanted |= {"timestamp": stored["ts"], "username": people[1]["nickname"], "platformid": people[1]["platformid"]}
        check({name: message.get(name) for name in wanted} == wanted, "message object", message, wanted)
        check((await b.expect("message"))[0] == message, "the sender gets it too")
        again = await b.done("message", {"roomID": room, "message": "hello", "cid": "c1", "colour": "blue", "timestamp": 5})
        check(again["dup"] is True and again["id"] == stored["id"], "resend", again)
        await b.refused("cid_conflict", "message", {"roomID": room, "message": "other", "cid": "c1"})
        await b.refused("bad_payload", "message", {"roomID": room, "message": "x", "username": "ann"})
        await b.refused("too_large", "message", {"roomID": room, "message": "x" * 20000})
        await a.sio.emit("message", {"message": "nowhere"})
        (error,) = await a.expect("errorMessage")
        check(error["event"] == "message" and error["code"] == "bad_payload", "errorMessage", error)

        # editMessage, deleteMessage
        await a.refused("not_author", "editMessage", {"roomID": room, "id": stored["id"], "message": "mine"})
        edited = await b.done("editMessage", {"roomID": room, "id": stored["id"], "message": "hello!"})
        (edit,) = await a.expect("editMessage")
        check((edit["id"], edit["message"], edit["rev"]) == (stored["id"], "hello!", edited["seq"]), "edit", edit)
        second = await a.done("message", {"roomID": room, "message": "second"})
        third = await a.done("message", {"roomID": room, "message": "third"})
        await b.refused("not_author", "deleteMessage", {"roomID": room, "id": third["id"]})
        await a.done("deleteMessage", {"roomID": room, "id": third["id"]})
        check((await b.expect("deleteMessage"))[0]["id"] == third["id"], "deletion")
        await a.refused("not_found", "editMessage", {"roomID": room, "id": third["id"], "message": "x"})

        # loadMoreMessages_for_room, syncRooms
        more = await a.call("loadMoreMessages_for_room", {"roomId": room, "timestamp": second["ts"]})
        check([(one["id"], one["message"]) for one in more] == [(stored["id"], "hello!")], "older", more)
        more = await a.call("loadMoreMessages_for_room", {"roomId": room, "oldmessage": stored["id"], "type": "new"})
        check([one["id"] for one in more] == [second["id"]], "newer", more)
        failed = await a.call("loadMoreMessages_for_room", {"roomId": "room-0", "timestamp": 1})
        check(failed["code"] == "not_member" and failed["error"], "foreign room", failed)
        platformid = people[0]["platformid"]
        await a.done("syncRooms", {"platformId": platformid, "rooms": [{"roomId": room, "timestamp": stored["ts"]}]})
        synced = (await a.expect("syncRoomsResponse"))[0]
        check([(one["roomId"], [m["id"] for m in one["messages"]]) for one in synced] == [(room, [second["id"]])], "sync", synced)
        rooms = [{"roomId": room}] + [{"roomId": f"{room}-{number}"} for number in range(11)]
        await a.call("syncRooms", {"platformId": platformid, "rooms": rooms})
        updated = (await a.expect("updatedRooms"))[0]
        check(len(updated) == 12 and len(updated[0]["messages"]) == 2, "batch", updated)

        # refreshToken
        await a.done("refreshToken")
        (tokens,) = await a.expect("token:refresh")
        check(tokens["accessToken"].count(".") == 2 and "refreshToken" not in tokens, "legacy refresh", tokens)
        await b.done("refreshToken")
        (tokens,) = await b.expect("token:refresh")
        check(tokens["refreshToken"] != bob["refreshToken"], "rotation", tokens)

        # leave, and join again from where one was
        await b.done("leave", {"roomID": room})
        await b.refused("not_joined", "message", {"roomID": room, "message": "x"})
        missed = await a.done("message", {"roomID": room, "message": "missed"})
        await b.done("join", {"roomID": room, "epoch": stored["epoch"], "seq": missed["seq"] - 1})
        previous, info = await b.expect("previousMessages")
        check([one["id"] for one in previous] == [missed["id"]] and info["recovered"], "resume", previous, info)

        # deleteroom
        leaving = {"roomID": room, "createdAt": created_at}
        await b.done("deleteroom", leaving | {"platformid": people[1]["platformid"], "username": people[1]["nickname"]})
        await a.expect("roomUpdate", lambda update: update["roomID"] == room and len(update["participants"]) == 1)
        await b.refused("not_member", "join", {"roomID": room})
        await a.done("deleteroom", leaving | {"platformid": platformid, "username": people[0]["nickname"]})
    finally:
        await a.sio.disconnect()
        await b.sio.disconnect()


async def refusal(http, nodes, backend):
    """Last, because it blocks the address."""
    login = await post(http, f"{backend}/login", {"username": "eve"})
    eve = Client(login)
    eve.auth["userAgent"] = "nobody"
    reasons = []
    eve.sio.on("connect_error", lambda reason: reasons.append(reason))
    try:
        await eve.connect(nodes[0], "websocket")
    except socketio.exceptions.ConnectionError:
        check("you're banned" in str(reasons), "connect_error", reasons)
    else:
        raise AssertionError("a foreign user agent was let in")
    finally:
        await eve.sio.disconnect()
    async with http.get(f"{nodes[0]}/socket.io/?EIO=4&transport=polling") as answer:
        check(answer.status == 403, "a blocked address", answer.status)


def start(binary):
    """Starts a demo on ports of its own; (process, base port)."""
    for _ in range(5):
        base = random.randrange(20000, 32000)
        command = [binary, "demo", "--port-base", str(base)]
        demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"ROOMCAST_LOG": "error"})
        if any("Ctrl-C" in line for line in demo.stdout):
            return demo, base
        demo.wait()
    raise SystemExit("the demo does not start")


async def run(base):
    nodes = [f"http://127.0.0.1:{base + number}" for number in range(2)]
    backend = f"http://127.0.0.1:{base + 10}"
    async with aiohttp.ClientSession() as http:
        for transport in ("websocket", "polling"):
            await table(http, nodes, backend, transport)
            print(f"{transport}: the event table holds")
        await refusal(http, nodes, backend)
        print("refusals: as the contract says")


def main():
    demo, base = start(sys.argv[1])
    try:
        asyncio.run(run(base))
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(timeout=PATIENCE)


main()
