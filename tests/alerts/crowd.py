"""People who do everything that there is to do in a chat, so that every metric has something to count."""

import asyncio
import contextlib
import random
from collections import Counter

import aiohttp
import socketio

from deployment import APP

PATIENCE = 10
# How those are refused who stray, or stop an answer that has ended.
EXPECTED = {"bad_payload", "not_member", "not_found"}
# Between two things that one person does.
PAUSE = 0.25
# What else people do, and how often of a hundred times; else they say something.
OTHERWISE = {"edit": 8, "delete": 5, "older": 8, "sync": 3, "ask": 4, "rejoin": 3, "stray": 3, "refresh": 1}


class Person:
    """Somebody with one connection, who is in one room."""

    def __init__(self, crowd, number, login):
        self.crowd, self.number, self.login = crowd, number, login
        self.room = f"room-{number % crowd.rooms}"
        self.chance = random.Random(number)
        self.said, self.strayed = None, False
        self.sio = None

    async def come(self, url):
        """Connects and joins."""
        self.sio = socketio.AsyncClient(reconnection=False)
        self.sio.on("token:refresh", self.keep)
        auth = {name: self.login[name] for name in ("accessToken", "refreshToken")}
        auth |= {"userAgent": APP, "username": self.login["user"]["username"]}
        await self.sio.connect(url, auth=auth, transports=["websocket"], wait_timeout=PATIENCE)
        await self.call("join", {"roomID": self.room})

    async def go(self):
        await self.sio.disconnect()

    async def keep(self, tokens):
        self.login |= tokens

    async def call(self, event, payload=None):
        answer = await self.sio.call(event, payload, timeout=PATIENCE)
        self.crowd.done[event] += 1
        if "code" in answer:
            self.crowd.refused[answer["code"]] += 1
        return answer

    async def act(self):
        """One thing."""
        draw = self.chance.randrange(100)
        for what, share in OTHERWISE.items():
            draw -= share
            if draw < 0:
                return await getattr(self, what)()
        answer = await self.call("message", {"roomID": self.room, "message": f"thought {self.chance.random()}"})
        self.said = answer.get("id")

    async def edit(self):
        if self.said:
            await self.call("editMessage", {"roomID": self.room, "id": self.said, "message": "on second thought"})

    async def delete(self):
        if self.said:
            await self.call("deleteMessage", {"roomID": self.room, "id": self.said})
            self.said = None

    async def older(self):
        await self.call("loadMoreMessages_for_room", {"roomId": self.room, "timestamp": 2_000_000_000_000})

    async def sync(self):
        await self.call("syncRooms", {"platformId": self.login["user"]["platformid"], "rooms": [{"roomId": self.room}]})

    async def ask(self):
        question = await self.call("message", {"roomID": self.room, "message": "@gpt slow 50 ms, and what do you think?"})
        if "id" in question and self.chance.random() < 0.1:
            await self.call("gpt:cancel", {"roomID": self.room, "id": question["id"]})

    async def rejoin(self):
        await self.call("leave", {"roomID": self.room})
        await self.call("join", {"roomID": self.room})

    async def stray(self):
        """What no room of theirs, and no author's right, allows; once each, or they would be kept out for it."""
        if not self.strayed:
            self.strayed = True
            await self.call("message", {"roomID": self.room})
            await self.call("join", {"roomID": f"room-{(self.number + 1) % self.crowd.rooms}"})

    async def refresh(self):
        await self.call("refreshToken")


class Crowd:
    """All of them, spread over the nodes."""

    def __init__(self, deployment, people):
        self.rooms = deployment.people[1]
        self.services = deployment.services
        self.urls = [role.url for role in deployment.roles if role.url]
        self.count = people
        self.people = []
        # Until when they chat, by the clock of the loop.
        self.end = 0
        # How many of each event were answered, and how many of each code were refused.
        self.done, self.refused = Counter(), Counter()

    async def login(self, http, username):
        async with http.post(f"{self.services}/login", json={"username": username}) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def run(self, seconds):
        """Lives for so long; half-way through, everybody of the first node comes back to another at once."""
        async with aiohttp.ClientSession() as http:
            logins = [await self.login(http, f"user{number}") for number in range(self.count)]
            self.people = [Person(self, number, login) for number, login in enumerate(logins)]
            for number, person in enumerate(self.people):
                await person.come(self.urls[number % len(self.urls)])
            await self.intruder(http)
            await self.dissolve(http)
        await self.chat(seconds / 2)
        await self.storm()
        await self.chat(seconds / 2)

    async def leave(self):
        await asyncio.gather(*(person.go() for person in self.people))

    async def chat(self, seconds):
        """Everybody acts for so long, or until they are hushed. Nobody is cancelled: `wait_for` of Python 3.11, under every call
        of the client, may swallow that, and who was to end would go on for ever."""
        clock = asyncio.get_running_loop()
        self.end = clock.time() + seconds

        async def live(person):
            # Another moment for each: a beat that all share would be no crowd.
            await asyncio.sleep(person.chance.random() * PAUSE)
            while clock.time() < self.end:
                await person.act()
                await asyncio.sleep(PAUSE)

        async with asyncio.TaskGroup() as everybody:
            for person in self.people:
                everybody.create_task(live(person))

    def hush(self):
        """Lets everybody finish what they are at."""
        self.end = 0

    async def storm(self):
        theirs = self.people[:: len(self.urls)]
        await asyncio.gather(*(person.go() for person in theirs))
        await asyncio.gather(*(person.come(self.urls[number % len(self.urls)]) for number, person in enumerate(theirs)))

    async def intruder(self, http):
        """A foreign program, from an address of its own: it is kept out, and so it stays."""
        connector = aiohttp.TCPConnector(local_addr=("127.0.66.6", 0))
        async with aiohttp.ClientSession(connector=connector) as own:
            login = await self.login(http, "user0")
            auth = {name: login[name] for name in ("accessToken", "refreshToken")} | {"userAgent": "x", "username": "user0"}
            for _ in range(2):
                client = socketio.AsyncClient(reconnection=False, http_session=own)
                with contextlib.suppress(socketio.exceptions.ConnectionError):
                    await client.connect(self.urls[0], auth=auth, transports=["websocket"], wait_timeout=PATIENCE)
                    raise AssertionError("a foreign program was let in")
                await client.disconnect()

    async def dissolve(self, http):
        """A room whose only participant leaves it for good."""
        person = self.people[0]
        who = {"platformid": person.login["user"]["platformid"], "username": person.login["user"]["username"]}
        room = {"roomID": "brief", "createdAt": 1_700_000_000_000}
        participants = [{"platformid": who["platformid"], "nickname": who["username"]}]
        body = room | {"owner": who["platformid"], "participants": participants}
        async with http.post(f"{self.services}/api/rooms/create-room", json=body) as answer:
            answer.raise_for_status()
        await person.call("deleteroom", room | who)
