#!/usr/bin/env python3
"""How many calls a black hole costs: one node among good ones, at which calls fail. See benches/README.md.

Usage: benches/black_holes.py. Needs Python alone. Each run starts SIZE nodes on loopback, each with a function of
its own that takes 50 ms. Clients call all nodes but the last, in open loop, at 80 % of what those nodes can run.
After a while calls begin to fail at the last node, in one of these ways:

    none        they do not: for comparison
    refuse      its function refuses connections
    hang        its function takes calls and never answers
    close       its function closes connections at once
    500         its function answers 500 at once
    garbage     its function answers at once, and not in HTTP
    peer-close, peer-500, peer-garbage, peer-hang
                the node itself does so with calls of other nodes. It is a program that joins as a node and says
                that it is idle; of peer-hang, forward_timeout_s is 2. Run only if WAYS names them

Prints a table row for each run: which share of the clients' calls that began in the first 10 s after that failed,
and which share of the later ones; calls under way at that time belong to the first. A call fails if its status is
not 200, or does not come within 25 s. Calls that the learner chose to reject (503 with code 401) are told apart: it
does so with and without black holes.

A run takes a minute, all of them half an hour. The machine should have nothing else to do: the good nodes are close
to full. In the environment, lists have blanks between their entries: SIZES, WAYS, SCHEDULERS (of NAMES below),
SECONDS_EACH (seconds with the black hole), P2PFAAS (the binary), BASE (the first three numbers of the nodes'
addresses), NODES (further settings of all nodes, as P2PFAAS_NAME=VALUE), CALLS (a file to which each failed call is
added, and what the nodes logged of each peer that they left out).
"""

import asyncio
import collections
import contextlib
import datetime
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

BINARY = os.environ.get("P2PFAAS", "target/release/p2pfaas")
BASE = os.environ.get("BASE", "127.0.4")
SIZES = [int(size) for size in os.environ.get("SIZES", "3 12").split()]
FUNCTION_WAYS = "none refuse hang close 500 garbage"
PEER_WAYS = "peer-close peer-500 peer-garbage peer-hang"
WAYS = os.environ.get("WAYS", FUNCTION_WAYS).split()
NAMES = {
    "PowerOfN": "PowerOfNScheduler 1 1 true 1",
    "Forward": "ForwardScheduler 1",
    "Learning": "LearningScheduler 1",
}
SCHEDULERS = os.environ.get("SCHEDULERS", " ".join(NAMES)).split()
SECONDS = float(os.environ.get("SECONDS_EACH", "30"))
CALLS = os.environ.get("CALLS")

K, QUEUE = 2, 16  # calls that run and wait on a node
FUNCTION_S = 0.05  # what a good function takes
SHARE = 0.8  # of what the good nodes can run
FIRST_S = 10.0  # the first part of a run
WARM_S, LEARN_S = 4.0, 30.0  # before the black hole begins
START_S = 30.0  # for nodes to start and to know each other
CALL_S = 25.0  # after which a client gives up
BAR_FIRST, BAR_LATER = 0.03, 0.005
SETTINGS = {
    "P2PFAAS_FUNCTION_TIMEOUT_S": "2",
    "P2PFAAS_DRAIN_TIMEOUT_S": "0",
    "P2PFAAS_LOG_FORMAT": "json",
    **dict(word.split("=", 1) for word in os.environ.get("NODES", "").split()),
}
# A learner that has learnt when the black hole begins. With a longer deadline, long queues would teach it nothing.
LEARNER = {"alpha": 0.3, "epsilon_decay": 0.995, "epsilon_min": 0.01,
           "reward": {"source": "node", "deadlines_s": [0.2]}}
NO_ANSWER = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError)


async def read_message(reader):
    """A head and its body: the first line, the headers, the body."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return lines[0], headers, body


def answer(status, headers=(), body=b""):
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines + ["", ""]).encode() + body


class Server:
    """An HTTP server at one port that can turn bad. `good` gives the answer to a first line and headers."""

    def __init__(self, host, port, good):
        self.host, self.port, self.good, self.way = host, port, good, "none"
        self.writers, self.server = set(), None

    async def start(self):
        self.server = await asyncio.start_server(self.serve, self.host, self.port, backlog=1024)

    async def turn(self, way):
        self.way = way
        if way in ("refuse", "close"):
            for writer in list(self.writers):
                writer.transport.abort()
        if way == "refuse":
            self.stop()

    def stop(self):
        if self.server:
            self.server.close()
        self.server = None

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            while self.way != "close":
                line, headers, _ = await read_message(reader)
                if self.way == "close":
                    break
                if self.way == "hang":
                    await asyncio.sleep(600)
                if self.way == "garbage":
                    writer.write(b"\x00\x01 this is no HTTP\r\n\r\n")
                    break
                if self.way == "500":
                    writer.write(answer(500))
                else:
                    writer.write(await self.good(line, headers))
                await writer.drain()
        except (*NO_ANSWER, asyncio.CancelledError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()


class FakeNode:
    """Joins as a node that is idle, and does with calls what `way` says."""

    def __init__(self, host, way):
        self.host, self.way = host, way
        self.me = ["User-Agent: Machine", f"p2pfaas-machine-ip: {host}", f"p2pfaas-machine-name: fake-{host}",
                   "p2pfaas-machine-group-name: ", "p2pfaas-protocol: 2"]
        self.list = Server(host, 19000, self.listed)
        self.calls = Server(host, 18080, self.call)
        self.bad = False

    async def start(self, others):
        await self.list.start()
        await self.calls.start()
        # As nodes of v1 do, it asks every other; from then on they poll it.
        for other in others:
            await ask(other, 19000, "GET /list", headers=self.me)

    async def listed(self, _line, _headers):
        return answer(200, ["Content-Type: application/json", *self.me], b"[]")

    async def call(self, line, _headers):
        if "/monitoring/load" in line:
            return answer(200, ["X-P2pfaas-Load: 0", f"X-P2pfaas-MaxLoad: {K}", "X-P2pfog-Queue-Length: 0"])
        if not self.bad:
            # Until then it serves calls.
            await asyncio.sleep(FUNCTION_S)
            return answer(200, ["P2pfaas-Outcome: executed", f"P2pfaas-Path: fake@{self.host}",
                                f"P2pfaas-Times: {FUNCTION_S};-;-;{FUNCTION_S}"], b"hello")
        if self.way == "peer-hang":
            await asyncio.sleep(600)
        if self.way == "peer-close":
            raise ConnectionError
        if self.way == "peer-500":
            return answer(500)
        return b"\x00\x01 this is no HTTP\r\n\r\n"

    async def turn(self):
        self.bad = True

    def stop(self):
        self.list.stop()
        self.calls.stop()


async def ask(host, port, what, body=b"", headers=(), limit=5.0):
    """One request on a connection of its own: status and body."""
    async with asyncio.timeout(limit):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            lines = [f"{what} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {len(body)}", *headers]
            writer.write("\r\n".join(lines + ["", ""]).encode() + body)
            head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
            return int(head.split()[1]), rest
        finally:
            writer.close()


async def good_function(_line, _headers):
    await asyncio.sleep(FUNCTION_S)
    return answer(200, body=b"hello")


@contextlib.contextmanager
def processes():
    """A list of processes that are ended in the end, each by its own id."""
    started = []
    try:
        yield started
    finally:
        for process in started:
            process.terminate()
        end = time.monotonic() + 10
        for process in started:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start_node(work, host, first, scheduler, way):
    settings = {name: value for name, value in os.environ.items() if not name.startswith("P2PFAAS")} | SETTINGS
    if way == "peer-hang":
        settings["P2PFAAS_FORWARD_TIMEOUT_S"] = "2"
    with open(work / f"{host}.log", "ab") as log:
        return subprocess.Popen(
            [BINARY, "node", "--host", host, "--data-path", work / host, "--init-server", first, "--workers", "2",
             "--scheduler", scheduler, "--k", str(K), "--queue-length", str(QUEUE),
             "--route", f"fn=http://{host}:18995/"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=settings)


async def know_each_other(hosts, others):
    end = time.monotonic() + START_S
    for host in hosts:
        while True:
            with contextlib.suppress(*NO_ANSWER):
                _, body = await ask(host, 19000, "GET /list")
                # It may come in chunks: names are counted.
                if body.count(b'"ip"') >= others:
                    break
            if time.monotonic() > end:
                raise SystemExit(f"{host} does not know all others: {body!r}")
            await asyncio.sleep(0.1)
    # Peers learn with the next poll that calls between them stream.
    await asyncio.sleep(3)


class Client:
    """Calls one node in open loop, on kept connections."""

    def __init__(self, host, rate, seed):
        self.host, self.rate, self.random = host, rate, random.Random(seed)
        self.idle, self.calls, self.tasks = [], [], set()

    async def connection(self):
        while self.idle:
            reader, writer, since = self.idle.pop()
            if time.monotonic() - since < 2 and not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self.host, 18080)

    async def call(self):
        began, status, code, ran = time.time(), 0, "no answer", ""
        writer = None
        try:
            async with asyncio.timeout(CALL_S):
                reader, writer = await self.connection()
                head = f"POST /function/fn HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: 5\r\n\r\n"
                writer.write(head.encode() + b"hello")
                line, headers, body = await read_message(reader)
            status, code = int(line.split()[1]), ""
            ran = headers.get("x-p2pfaas-peers-list-ip", "")
            if status != 200:
                with contextlib.suppress(ValueError, AttributeError):
                    told = json.loads(body)
                    code, ran = told.get("code", ""), ran or told.get("message", "")
            if headers.get("connection", "").lower() != "close":
                self.idle.append((reader, writer, time.monotonic()))
                writer = None
        except TimeoutError:
            code = "time-out"
        except NO_ANSWER as why:
            ran = repr(why)
        finally:
            if writer:
                writer.close()
        self.calls.append({"began": began, "took": time.time() - began, "node": self.host, "status": status,
                           "code": code, "ran": ran})

    async def run(self):
        at = time.monotonic()
        while True:
            at += self.random.expovariate(self.rate)
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            task = asyncio.create_task(self.call())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)


def left_out(work, hosts, begin):
    """What the nodes logged of each time that they left a peer out: seconds since `begin`, node, line."""
    found = []
    for host in hosts:
        for line in open(work / f"{host}.log", errors="replace"):
            if "it is left out" in line:
                with contextlib.suppress(ValueError, KeyError):
                    at = json.loads(line)["timestamp"]
                    at = datetime.datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()
                    found.append((at - begin, host, line.strip()))
    return sorted(found)


async def run(size, way, scheduler):
    hosts = [f"{BASE}.{n}" for n in range(1, size + 1)]
    good, bad = hosts[:-1], hosts[-1]
    is_peer = way.startswith("peer-")
    with contextlib.ExitStack() as stack:
        work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {host: Server(host, 18995, good_function) for host in (good if is_peer else hosts)}
        for server in servers.values():
            stack.callback(server.stop)
            await server.start()
        started = stack.enter_context(processes())
        for host in good if is_peer else hosts:
            started.append(start_node(work, host, good[0], NAMES[scheduler], way))
        if is_peer:
            hole = FakeNode(bad, way)
            stack.callback(hole.stop)
            await asyncio.sleep(2)
            await hole.start(good)
        await know_each_other(good, size - 1)
        if scheduler == "Learning":
            for host in good:
                body = json.dumps(LEARNER | {"actions_n": 3 + size - 1}).encode()
                for what in ("POST /learner/parameters", "GET /learner/reset"):
                    status, told = await ask(host, 19020, what, body if what.startswith("POST") else b"")
                    if status != 200:
                        raise SystemExit(f"{host} answers {what} with {status}: {told!r}")
        rate = SHARE * K / FUNCTION_S
        clients = [Client(host, rate, seed) for seed, host in enumerate(good)]
        tasks = [asyncio.create_task(client.run()) for client in clients]
        try:
            await asyncio.sleep(LEARN_S if scheduler == "Learning" else WARM_S)
            begin = time.time()
            if is_peer:
                await hole.turn()
            elif way != "none":
                await servers[bad].turn(way)
            await asyncio.sleep(SECONDS)
            for task in tasks:
                task.cancel()
            late = [task for client in clients for task in client.tasks]
            if late:
                await asyncio.wait(late, timeout=CALL_S + 1)
        finally:
            late = [task for client in clients for task in client.tasks]
            for task in tasks + late:
                task.cancel()
            await asyncio.gather(*tasks, *late, return_exceptions=True)
        ended = [process.args[3] for process in started if process.poll() is not None]
        if ended:
            raise SystemExit(f"ended before its time: {ended}")
        calls = [call | {"at": call["began"] - begin} for client in clients for call in client.calls]
        return [call for call in calls if call["at"] + call["took"] >= 0], left_out(work, good, begin)


def row(size, way, scheduler, calls, outs):
    def part(some):
        rejected = sum(call["code"] == 401 for call in some)
        failed = sum(call["status"] != 200 for call in some) - rejected
        return failed, rejected, failed / max(1, len(some))

    first = [call for call in calls if call["at"] < FIRST_S]
    later = [call for call in calls if call["at"] >= FIRST_S]
    failed = [call for call in first + later if call["status"] != 200 and call["code"] != 401]
    codes = collections.Counter(f"{call['status']}/{call['code']}" if call["code"] else str(call["status"])
                                for call in failed)
    cells = [size, way, scheduler]
    met = True
    for some, bar in ((first, BAR_FIRST), (later, BAR_LATER)):
        count, rejected, share = part(some)
        met = met and share <= bar
        cells.append(f"{count} of {len(some)}: {100 * share:.2f} %")
    cells.append(sum(part(some)[1] for some in (first, later)))
    cells.append(", ".join(f"{count} × {code}" for code, count in codes.most_common(4)))
    firsts = {}
    for at, host, _ in outs:
        firsts.setdefault(host, at)
    when = sorted(firsts.values())
    span = f"{len(outs)} times, first by {len(when)} nodes after {when[0]:.1f} to {when[-1]:.1f} s" if when else ""
    cells.append(span)
    cells.append("met" if met else "missed")
    return "| " + " | ".join(map(str, cells)) + " |"


async def main():
    for words, known in ((SCHEDULERS, list(NAMES)), (WAYS, f"{FUNCTION_WAYS} {PEER_WAYS}".split())):
        for word in words:
            if word not in known:
                raise SystemExit(f"{word} is none of {', '.join(known)}")
    if not os.access(BINARY, os.X_OK):
        raise SystemExit(f"{BINARY} is missing: cargo build --release")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    print(f"| nodes | way | scheduler | failed in the first {FIRST_S:.0f} s (bar: {100 * BAR_FIRST:.1f} %) "
          f"| failed later (bar: {100 * BAR_LATER:.1f} %) | rejected by the learner | how (status/code) | left out | |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for size in SIZES:
        for way in WAYS:
            for scheduler in SCHEDULERS:
                calls, outs = await run(size, way, scheduler)
                print(row(size, way, scheduler, calls, outs), flush=True)
                if CALLS:
                    with open(CALLS, "a") as file:
                        case = {"size": size, "way": way, "scheduler": scheduler}
                        for call in sorted(calls, key=lambda call: call["at"]):
                            if call["status"] != 200:
                                file.write(json.dumps(case | call) + "\n")
                        for at, host, line in outs:
                            file.write(json.dumps(case | {"at": at, "node": host, "log": line}) + "\n")


try:
    asyncio.run(main())
except (KeyboardInterrupt, asyncio.CancelledError):
    sys.exit(130)
