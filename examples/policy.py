#!/usr/bin/env python3
"""Decides where calls go, for nodes with the scheduler "ExternalScheduler ws://HOST:PORT/".

Power of two choices with a memory: where a node is busy, two of its peers are probed, and the call goes to the one
with the shorter wait, if that is shorter than here. A peer's wait is its load by its K, times how long calls took
there of late. Peers that lost calls are drawn less often.

    pip install websockets
    policy.py [HOST [PORT]]
"""

import asyncio
import json
import random
import sys

from websockets.asyncio.server import serve

NEWEST = 0.1  # the weight of the newest outcome


class Memory:
    """What a node's program remembers of its peers, and of the node itself as the host ""."""

    def __init__(self):
        self.took, self.trust = {}, {}

    def hears(self, outcome):
        host, went_well = outcome["peer"] or "", outcome["kind"] == "served"
        self.trust[host] = self.trust.get(host, 1.0) * (1 - NEWEST) + NEWEST * went_well
        if went_well:
            took = self.took.get(host, outcome["total_s"])
            self.took[host] = took * (1 - NEWEST) + NEWEST * outcome["total_s"]

    def wait(self, host, at, k):
        usual = sum(self.took.values()) / len(self.took) if self.took else 1.0
        return (at["running"] + at["waiting"]) / (at["k"] or k) * self.took.get(host, usual)

    def decides(self, call):
        node, heard = call["node"], call["heard"]
        if call["task"]["from_peer"] or node["running"] + node["waiting"] < node["k"]:
            return "run"
        if heard["rounds"] == 0:
            hosts = [peer["host"] for peer in call["peers"]]
            trusted = [host for host in hosts if random.random() < max(0.1, self.trust.get(host, 1.0))]
            drawn = random.sample(trusted, min(2, len(trusted)))
            return {"probe": drawn} if drawn else "run"
        there = [at for at in heard["probes"] if at["host"] not in heard["unreachable"]]
        waits = [(self.wait(at["host"], at, node["k"]), at["host"]) for at in there]
        host = min([(self.wait("", node, 1), "")] + waits)[1]
        return {"forward": host} if host else "run"


MEMORIES = {}  # by node: a node has several sockets, and one socket of a simulation speaks for all its nodes


async def decide(socket):
    memory = Memory()
    async for text in socket:
        frame = json.loads(text)
        if frame["type"] == "node":
            memory = MEMORIES.setdefault(frame["host"], Memory())
        elif frame["type"] == "outcome":
            memory.hears(frame)
        elif frame["type"] == "call":
            await socket.send(json.dumps({"id": frame["id"], "step": memory.decides(frame)}))


async def main(host="127.0.0.1", port="9090"):
    async with serve(decide, host, int(port), compression=None) as server:
        print(f"decides at ws://{host}:{port}/", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
