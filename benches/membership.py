#!/usr/bin/env python3
"""How fast and how surely nodes know who is there: real nodes, one process each. See docs/reliability.md.

Usage, as root: benches/membership.py. Needs Python alone, and Linux with /dev/net/tun. Each part starts nodes of its
own, and prints table rows: what was measured, its bar, and whether it was met. PARTS selects:

    kill         one node of 12, and of 100, is killed: until it is off all lists
    idle         what 12 and 100 nodes send and use while nothing happens
    loss         12 nodes, of whose datagrams 10 % are lost: whether anybody is missing from a list
    stalls       100 nodes, of which 10 are stopped for up to 1 s each, again and again: whether anybody is missing
    far          3 nodes with long round trips: whether they are listed, and whether calls find an idle peer
    parted       12 nodes, cut in halves for 20 s, then one of them alone: until all list all again
    unreachable  12 nodes, one of which cannot be connected to, but is heard: until it is off all lists, and back
    records      what a node says of itself changes: until all of 12, and of 100, know

All nodes run in network namespaces made here, so other traffic counts nowhere. Where the network is to be bad, each
node has a namespace of its own, with a TUN interface. This program carries packets from one to the other, late or
not at all: a connection takes its round trips too, and one that is cut off hears nothing, not even a refusal.

All parts take about half an hour. What takes time depends on what else the machine does; the last column says how
much that was, in percent of one core. (On a busy machine nodes ping more seldom, so idle ones seem to cost less.) In
the environment: PARTS (with blanks between them), LOSS_MINUTES, STALL_MINUTES, LOSS_OF ("udp", or "udp tcp" for
connections too), FAR_MS (round trips), LARGE (nodes where the table says 100), SEED, P2PFAAS (the binary), NODES
(further settings of all nodes, as P2PFAAS_NAME=VALUE), LOGS (a folder that keeps the nodes' logs), RUST_LOG.
"""

import asyncio
import collections
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

BINARY = os.environ.get("P2PFAAS", "target/release/p2pfaas")
ALL_PARTS = "kill idle loss stalls far parted unreachable records"
PARTS = os.environ.get("PARTS", ALL_PARTS).split()
LOSS_MINUTES = float(os.environ.get("LOSS_MINUTES", "5"))
STALL_MINUTES = float(os.environ.get("STALL_MINUTES", "5"))
LOSS_OF = os.environ.get("LOSS_OF", "udp").split()
FAR_MS = [int(ms) for ms in os.environ.get("FAR_MS", "160 260 400").split()]
SMALL, LARGE = 12, int(os.environ.get("LARGE", "100"))
SEED = int(os.environ.get("SEED", "1"))
LOGS = os.environ.get("LOGS")

KILLS, SHUTS, CHANGES = 5, 3, 50
IDLE_S, FAR_S, CUT_S = 60.0, 60.0, 20.0
SETTLE_S = 20.0  # until nodes that have just started are idle
LOSS, STALLERS, STALL_S = 0.1, 10, 1.0
STAYS_S = 10.0  # how long it is watched whether what cannot be reached comes back
CALLS = 20
START_S, STEP_S, ASK_S = 60.0, 60.0, 5.0  # what anything may take
AT_ONCE = 8  # nodes that are asked at a time
JOIN_THROUGH = 3
LIST_PORT, CALL_PORT = 19000, 18080
DEATHS = ("a machine does not answer any more", "a machine cannot be connected to any more")
SETTINGS = {"P2PFAAS_LOG_BURST": "0", **dict(word.split("=", 1) for word in os.environ.get("NODES", "").split())}
NO_ANSWER = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError)

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NETWORK, DIE_WITH_PARENT = 0x40000000, 1  # CLONE_NEWNET, PR_SET_PDEATHSIG
SET_FLAGS, SET_ADDRESS, SET_MASK, SET_TUN = 0x8914, 0x8916, 0x891C, 0x400454CA
UP, TUN_WITHOUT_HEAD = 0x41, 0x1001
TCP, UDP = 6, 17
PROTOCOLS = {"tcp": TCP, "udp": UDP}


def enter(network):
    if LIBC.setns(network, NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "a network namespace cannot be entered")


class Network:
    """A network namespace; with an address, it has a TUN interface of that address."""

    HOME = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def __init__(self, address=None):
        self.tun = self.at = None
        if LIBC.unshare(NEW_NETWORK):
            raise SystemExit("it must run as root: a network namespace cannot be made")
        try:
            self.at = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks:
                self.set(asks, "lo", SET_FLAGS, UP)
                if address:
                    self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                    fcntl.ioctl(self.tun, SET_TUN, struct.pack("16sH22x", b"peers", TUN_WITHOUT_HEAD))
                    self.set(asks, "peers", SET_ADDRESS, address)
                    self.set(asks, "peers", SET_MASK, "255.255.0.0")
                    self.set(asks, "peers", SET_FLAGS, UP)
        except BaseException:
            self.close()
            raise
        finally:
            enter(self.HOME)

    @staticmethod
    def set(asks, name, what, value):
        if isinstance(value, int):
            value = struct.pack("16sH22x", name.encode(), value)
        else:
            value = struct.pack("16sHH4s16x", name.encode(), socket.AF_INET, 0, socket.inet_aton(value))
        fcntl.ioctl(asks, what, value)

    @contextlib.contextmanager
    def inside(self):
        enter(self.at)
        try:
            yield
        finally:
            enter(self.HOME)

    def close(self):
        for fd in (self.tun, self.at):
            if fd is not None:
                os.close(fd)
        self.tun = self.at = None


class Wire:
    """Carries packets between networks: late, or not at all."""

    def __init__(self, networks, seed):
        self.loop, self.random = asyncio.get_running_loop(), random.Random(seed)
        self.tuns = {socket.inet_aton(address): network.tun for address, network in networks.items()}
        self.one_way_s = self.loss = 0.0
        self.lossy = {PROTOCOLS[name] for name in LOSS_OF}
        self.sides, self.closed = {}, set()
        for tun in self.tuns.values():
            self.loop.add_reader(tun, self.read, tun)

    def close(self):
        for tun in self.tuns.values():
            self.loop.remove_reader(tun)
        self.tuns = {}

    def cut(self, some):
        """Between these addresses and all others nothing is carried any more."""
        self.sides = {socket.inet_aton(address): True for address in some}

    def shut(self, some):
        """To these addresses no connection is carried any more."""
        self.closed = {socket.inet_aton(address) for address in some}

    def read(self, tun):
        for _ in range(64):
            try:
                packet = os.read(tun, 65536)
            except OSError:
                return
            if packet[0] >> 4 == 4 and self.carries(packet):
                if self.one_way_s:
                    self.loop.call_later(self.one_way_s, self.write, packet)
                else:
                    self.write(packet)

    def carries(self, packet):
        protocol, sender, to = packet[9], packet[12:16], packet[16:20]
        if self.sides.get(sender) != self.sides.get(to):
            return False
        if protocol == TCP and to in self.closed:
            start = (packet[0] & 15) * 4
            if int.from_bytes(packet[start + 2:start + 4], "big") in (LIST_PORT, CALL_PORT):
                return False
        return not (self.loss and protocol in self.lossy and self.random.random() < self.loss)

    def write(self, packet):
        tun = self.tuns.get(packet[16:20])
        if tun is not None:
            with contextlib.suppress(OSError):
                os.write(tun, packet)


async def read_answer(reader):
    """Status, headers and body."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(lines[0].split()[1]), headers, body


class Node:
    """One node, and a connection to its lists."""

    def __init__(self, address, network, work, through, settings, flags):
        self.address, self.network, self.work = address, network, work
        self.log = work / f"{address}.log"
        self.settings = {name: value for name, value in os.environ.items() if not name.startswith("P2PFAAS")}
        self.settings |= SETTINGS | {"P2PFAAS_INIT_SERVERS": ",".join(through)} | settings
        self.flags, self.process, self.kept = flags, None, None
        self.alone = asyncio.Lock()

    def start(self):
        with open(self.log, "ab") as log, self.network.inside():
            self.process = subprocess.Popen(
                [BINARY, "node", "--host", self.address, "--machine-ip", self.address,
                 "--data-path", self.work / self.address, *self.flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.settings,
                preexec_fn=lambda: LIBC.prctl(DIE_WITH_PARENT, signal.SIGKILL))

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.forget()

    def forget(self):
        if self.kept:
            self.kept[1].close()
        self.kept = None

    async def connect(self, port):
        with self.network.inside():
            asks = socket.socket()
        asks.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(asks, (self.address, port))
            return await asyncio.open_connection(sock=asks, limit=1 << 20)
        except BaseException:
            asks.close()
            raise

    async def ask(self, what, body=b"", headers=(), port=LIST_PORT, limit=ASK_S):
        """One request on a connection of its own: status, headers and body."""
        async with asyncio.timeout(limit):
            reader, writer = await self.connect(port)
            try:
                writer.write(self.request(what, body, headers))
                return await read_answer(reader)
            finally:
                writer.close()

    def request(self, what, body=b"", headers=()):
        lines = [f"{what} HTTP/1.1", f"Host: {self.address}", f"Content-Length: {len(body)}", *headers]
        return "\r\n".join(lines + ["", ""]).encode() + body

    async def get(self, path):
        """The body at `path` of its lists, on a kept connection; nothing where it does not answer."""
        async with self.alone:
            for _ in range(2):
                try:
                    async with asyncio.timeout(ASK_S):
                        if not self.kept:
                            self.kept = await self.connect(LIST_PORT)
                        self.kept[1].write(self.request(f"GET {path}"))
                        return (await read_answer(self.kept[0]))[2]
                except NO_ANSWER:
                    self.forget()
                except BaseException:
                    self.forget()
                    raise
            return b""

    async def lists(self):
        """The addresses that it lists; `None` where it does not answer."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return {machine["ip"] for machine in json.loads(await self.get("/list"))}
        return None

    def logged(self, words):
        return sum(any(word in line for word in words) for line in open(self.log, errors="replace"))

    def cpu_s(self):
        """Processor time that it has used."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def each(nodes, ask):
    """What `ask` gives for each node; a few are asked at a time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(node):
        async with turns:
            return await ask(node)

    return await asyncio.gather(*(one(node) for node in nodes))


class Cluster:
    """Nodes that run, each in a network of its own if there is a wire; they are ended in the end."""

    def __init__(self, name, count, wired=False, flags=(), settings=None, one_way_s=0.0):
        self.name, self.count, self.wired = name, count, wired
        self.flags, self.settings, self.one_way_s = list(flags), settings or (lambda place: {}), one_way_s
        self.nodes, self.wire = [], None
        self.stack = contextlib.ExitStack()
        self.random = random.Random(SEED)

    async def __aenter__(self):
        try:
            work = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="p2pfaas-")))
            if LOGS:
                self.stack.callback(self.keep_logs, work)
            base = "10.6.0" if self.wired else "127.0.6"
            addresses = [f"{base}.{n}" for n in range(1, self.count + 1)]
            networks = {}
            for address in addresses:
                if self.wired or not networks:
                    network = Network(address if self.wired else None)
                    self.stack.callback(network.close)
                networks[address] = network
            if self.wired:
                self.wire = Wire(networks, SEED)
                self.wire.one_way_s = self.one_way_s
                self.stack.callback(self.wire.close)
            for place, address in enumerate(addresses):
                through = [other for other in addresses[:JOIN_THROUGH] if other != address]
                node = Node(address, networks[address], work, through, self.settings(place), self.flags)
                self.nodes.append(node)
                self.stack.callback(node.kill)
                node.start()
            await self.until_all_listed(START_S, "they do not find each other")
            return self
        except BaseException:
            self.stack.close()
            raise

    async def __aexit__(self, kind, why, trace):
        ended = [node.address for node in self.nodes if node.process.poll() is not None]
        self.stack.close()
        if ended and not kind:
            raise SystemExit(f"{self.name}: ended before their time: {ended}")

    def keep_logs(self, work):
        folder = pathlib.Path(LOGS)
        folder.mkdir(parents=True, exist_ok=True)
        for log in work.glob("*.log"):
            shutil.copy(log, folder / f"{self.name}-{log.name}")

    def others(self, node):
        return [other for other in self.nodes if other is not node]

    async def until(self, asked, is_so, limit=STEP_S, together=False):
        """How long it takes until `is_so` holds of each node, once at least, or of all together; `None`: longer."""
        began = time.monotonic()
        pending = list(asked)
        while True:
            found = await each(pending, is_so)
            took = time.monotonic() - began
            if all(found):
                return took
            if not together:
                pending = [node for node, so in zip(pending, found) if not so]
            if took > limit:
                return None
            await asyncio.sleep(0.01)

    async def until_all_listed(self, limit=STEP_S, fails=None):
        addresses = {node.address for node in self.nodes}

        async def lists_all(node):
            return await node.lists() == addresses - {node.address}

        took = await self.until(self.nodes, lists_all, limit)
        if took is None and fails:
            raise SystemExit(f"{self.name}: {fails}")
        return took

    async def missing(self, asked, alive):
        """Which node does not list whom of those alive."""
        alive = {node.address for node in alive}
        found = await each(asked, Node.lists)
        return [(node.address, other) for node, lists in zip(asked, found)
                for other in sorted(alive - {node.address} - (lists or set()))]

    async def watch(self, seconds, every, asked, alive):
        """Samples in all, those in which somebody was missing, and how often who was."""
        end, samples, bad, who = time.monotonic() + seconds, 0, 0, collections.Counter()
        while time.monotonic() < end:
            began = time.monotonic()
            missing = await self.missing(asked, alive)
            samples, bad = samples + 1, bad + bool(missing)
            who.update(missing)
            await asyncio.sleep(max(0.0, began + every - time.monotonic()))
        return samples, bad, who

    def deaths(self, asked):
        return sum(node.logged(DEATHS) for node in asked)


def table_row(what, bar, measured, met):
    words = {True: "met", False: "missed", None: ""}
    return [what, bar, measured, words[met]]


def seconds(all_of_them):
    return ", ".join("never" if took is None else f"{took:.2f}" for took in all_of_them) + " s"


def within(all_of_them, bar):
    return all(took is not None and took <= bar for took in all_of_them)


def not_listing(address):
    async def asked(node):
        body = await node.get("/list")
        return bool(body) and f'"ip":"{address}"'.encode() not in body
    return asked


def listing(address):
    async def asked(node):
        return f'"ip":"{address}"'.encode() in await node.get("/list")
    return asked


async def kill():
    for size in (SMALL, LARGE):
        async with Cluster(f"kill-{size}", size) as cluster:
            all_took, back = [], 0
            await asyncio.sleep(SETTLE_S / 2)
            for _ in range(KILLS):
                node = cluster.random.choice(cluster.nodes)
                others = cluster.others(node)
                await asyncio.sleep(cluster.random.uniform(1, 3))
                node.kill()
                all_took.append(await cluster.until(others, not_listing(node.address)))
                await asyncio.sleep(1)
                back += sum(await each(others, listing(node.address)))
                node.start()
                await cluster.until_all_listed(START_S, "one that is started again is not found")
            again = f"; {back} listed it again" if back else ""
            yield table_row(f"a killed node off everybody's list, {size} nodes ({KILLS} times)", "≤ 1.5 s",
                            seconds(all_took) + again, within(all_took, 1.5) and not back)


async def idle():
    def sent(network):
        with network.inside(), open("/proc/thread-self/net/dev") as file:
            return next(int(line.split(":")[1].split()[8]) for line in file if line.strip().startswith("lo:"))

    for size in (SMALL, LARGE):
        async with Cluster(f"idle-{size}", size) as cluster:
            network = cluster.nodes[0].network
            for node in cluster.nodes:
                node.forget()
            await asyncio.sleep(SETTLE_S)
            began, bytes_before = time.monotonic(), sent(network)
            cpu_before = sum(node.cpu_s() for node in cluster.nodes)
            await asyncio.sleep(IDLE_S)
            bytes_after, cpu_after = sent(network), sum(node.cpu_s() for node in cluster.nodes)
            took = time.monotonic() - began
            rate = (bytes_after - bytes_before) / took / size
            share = 100 * (cpu_after - cpu_before) / took
            yield table_row(f"traffic of an idle node, {size} nodes (all of loopback, {IDLE_S:.0f} s)", "≤ 1000 B/s",
                            f"{rate:.0f} B/s", rate <= 1000)
            is_large = size == LARGE
            yield table_row(f"processor time of {size} idle nodes", "≤ 15 % of one core" if is_large else "",
                            f"{share:.1f} %", share <= 15 if is_large else None)


async def loss():
    async with Cluster("loss", SMALL, wired=True) as cluster:
        cluster.wire.loss = LOSS
        samples, bad, who = await cluster.watch(LOSS_MINUTES * 60, 0.5, cluster.nodes, cluster.nodes)
        deaths = cluster.deaths(cluster.nodes)
        named = "" if not who else "; " + ", ".join(f"{a} without {b}: {n}" for (a, b), n in who.most_common(4))
        yield table_row(f"somebody missing, {SMALL} nodes, {100 * LOSS:.0f} % loss ({' and '.join(LOSS_OF)}), "
                        f"{LOSS_MINUTES:g} min", "0",
                        f"{bad} of {samples} samples, {deaths} deaths in the logs{named}", not bad and not deaths)


async def stalls():
    async with Cluster("stalls", LARGE) as cluster:
        await asyncio.sleep(SETTLE_S)
        stallers = cluster.random.sample(cluster.nodes, min(STALLERS, LARGE // 2))
        others = [node for node in cluster.nodes if node not in stallers]
        before, stalled = cluster.deaths(others), 0

        async def stall(node):
            nonlocal stalled
            while True:
                await asyncio.sleep(cluster.random.uniform(0, 2))
                node.process.send_signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(cluster.random.uniform(0, STALL_S))
                finally:
                    node.process.send_signal(signal.SIGCONT)
                stalled += 1

        tasks = [asyncio.create_task(stall(node)) for node in stallers]
        try:
            # Seldom, for that is work too: the logs tell of what is between.
            samples, bad, who = await cluster.watch(STALL_MINUTES * 60, 2.0, others, cluster.nodes)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        deaths = cluster.deaths(others) - before
        missed = len({other for _, other in who})
        yield table_row(f"false deaths, {LARGE} nodes of which {len(stallers)} stall for up to {STALL_S:g} s "
                        f"({stalled} times), {STALL_MINUTES:g} min", "0",
                        f"{deaths} in the logs; {missed} nodes missing in {bad} of {samples} samples",
                        not deaths and not bad)


async def far():
    full = {"P2PFAAS_QUEUE_ENABLED": "false", "P2PFAAS_PARALLEL_RUNNING_FUNCTIONS_MAX": "1"}
    common = {"P2PFAAS_FUNCTION_TIMEOUT_S": "110", "P2PFAAS_EMBEDDED_FUNCTIONS": "true",
              "P2PFAAS_SCHEDULER": "PowerOfNScheduler 1 1 true 1"}
    for ms in FAR_MS:
        async with Cluster(f"far-{ms}", 3, wired=True, one_way_s=ms / 2000,
                           settings=lambda place: common | (full if place == 0 else {})) as cluster:
            samples, bad, _ = await cluster.watch(FAR_S, 0.2, cluster.nodes, cluster.nodes)
            yield table_row(f"somebody missing, 3 nodes, round trips of {ms} ms, {FAR_S:.0f} s", "0",
                            f"{bad} of {samples} samples", not bad)
            entry = cluster.nodes[0]
            long_one = asyncio.create_task(entry.ask(
                "POST /function/fn-sleep?dist=constant&mean_ms=100000", headers=["X-P2pfaas-Scheduler-Bypass: 1"],
                port=CALL_PORT, limit=STEP_S * 2))
            try:
                await asyncio.sleep(1)
                forwarded, times, others = 0, [], collections.Counter()
                for _ in range(CALLS):
                    began = time.monotonic()
                    try:
                        status, headers, _ = await entry.ask("POST /function/fn-echo", port=CALL_PORT)
                    except NO_ANSWER:
                        status, headers = "no answer", {}
                    if status == 200 and headers.get("x-p2pfaas-externally-executed") == "True":
                        forwarded += 1
                        times.append(time.monotonic() - began)
                    else:
                        others[status] += 1
                if long_one.done():
                    raise SystemExit(f"the node was not full: {long_one.result()}")
            finally:
                long_one.cancel()
                await asyncio.gather(long_one, return_exceptions=True)
            times.sort()
            spent = f", {times[0]:.2f} to {times[-1]:.2f} s each" if times else ""
            how = "".join(f", {count} × {status}" for status, count in others.items())
            yield table_row(f"an idle peer is found, round trips of {ms} ms", f"≥ {CALLS - 1} of {CALLS} calls",
                            f"{forwarded}{spent}{how}", forwarded >= CALLS - 1)


async def parted():
    async with Cluster("parted", SMALL, wired=True) as cluster:
        for what, some, bar in (("halves", cluster.nodes[::2], 10.0), ("one node alone", cluster.nodes[-1:], 5.0)):
            await asyncio.sleep(SETTLE_S / 2)
            cluster.wire.cut([node.address for node in some])
            await asyncio.sleep(CUT_S)
            rest = [node for node in cluster.nodes if node not in some]
            sizes = {node: len(lists or ()) for node, lists in
                     zip(cluster.nodes, await each(cluster.nodes, Node.lists))}
            parts = [sizes[node] == len(side) - 1 for side in (some, rest) for node in side]
            cluster.wire.cut([])
            took = await cluster.until_all_listed()
            was = "" if all(parts) else f"; while cut, {parts.count(False)} nodes listed others than their side"
            yield table_row(f"{what} cut off for {CUT_S:.0f} s, {SMALL} nodes: until all list all", f"≤ {bar:.0f} s",
                            seconds([took]) + was, within([took], bar) and all(parts))


async def unreachable():
    async with Cluster("unreachable", SMALL, wired=True) as cluster:
        off, back, samples, listed = [], [], 0, 0
        for node in cluster.random.sample(cluster.nodes, SHUTS):
            await asyncio.sleep(SETTLE_S / 2)
            others = cluster.others(node)
            cluster.wire.shut([node.address])
            off.append(await cluster.until(others, not_listing(node.address), together=True))
            end = time.monotonic() + STAYS_S
            while time.monotonic() < end:
                found = await each(others, listing(node.address))
                samples, listed = samples + 1, listed + any(found)
                await asyncio.sleep(0.2)
            cluster.wire.shut([])
            back.append(await cluster.until_all_listed())
        yield table_row(f"a node that is heard, but not reached, off all lists, {SMALL} nodes ({SHUTS} times)",
                        "≤ 10 s", seconds(off), within(off, 10))
        yield table_row(f"it stays off them for {STAYS_S:.0f} s", "0 times listed", f"{listed} of {samples} samples",
                        not listed)
        yield table_row("it can be reached again: on all lists", "≤ 10 s", seconds(back), within(back, 10))


async def records():
    for size in (SMALL, LARGE):
        async with Cluster(f"records-{size}", size) as cluster:
            await asyncio.sleep(SETTLE_S)
            all_took = []
            for change in range(CHANGES):
                await asyncio.sleep(cluster.random.uniform(0.5, 1.0))
                node, group = cluster.random.choice(cluster.nodes), f"g{change}-{SEED}"
                began = time.monotonic()
                body = json.dumps({"machine_group_name": group}).encode()
                status, _, told = await node.ask("POST /configuration", body, ["Content-Type: application/json"])
                if status != 200:
                    raise SystemExit(f"{node.address} does not change its group: {status} {told!r}")

                async def knows(other, group=f'"group":"{group}"'.encode()):
                    return group in await other.get("/records")

                took = await cluster.until(cluster.nodes, knows)
                all_took.append(None if took is None else time.monotonic() - began)
            known = sorted(took for took in all_took if took is not None)
            never = len(all_took) - len(known)
            worst = known[min(len(known) - 1, -(-99 * len(known) // 100) - 1)]
            yield table_row(f"a changed record known to all, {size} nodes ({CHANGES} changes), 99 % of them", "≤ 1 s",
                            f"{worst:.2f} s (half of them {known[len(known) // 2]:.2f} s)"
                            + (f", {never} never" if never else ""), worst <= 1 and not never)


def busy_s():
    """Processor time that the machine has used, and what of it this program and the nodes that have ended did."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    whole = (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return whole - sum(use.ru_utime + use.ru_stime for use in uses)


async def main():
    for part in PARTS:
        if part not in ALL_PARTS.split():
            raise SystemExit(f"{part} is none of {ALL_PARTS}")
    if not os.access(BINARY, os.X_OK):
        raise SystemExit(f"{BINARY} is missing: cargo build --release")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    print("| what | bar | measured | | other work |")
    print("|---|---|---|---|---|", flush=True)
    for part in PARTS:
        began, before, rows = time.monotonic(), busy_s(), []
        async with contextlib.aclosing(globals()[part]()) as found:
            async for row in found:
                print(f"{part}: {row[2]}", file=sys.stderr, flush=True)
                rows.append(row)
        others = max(0.0, 100 * (busy_s() - before) / (time.monotonic() - began))
        for row in rows:
            print("| " + " | ".join([*row, f"{others:.0f} %"]) + " |", flush=True)


try:
    asyncio.run(main())
except (KeyboardInterrupt, asyncio.CancelledError):
    sys.exit(130)
