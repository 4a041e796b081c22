#!/usr/bin/env python3
"""What streams cost a node: memory, the delay of the first byte, and long bodies. See benches/README.md.

Usage: benches/streams.py [BINARY]. Needs Python alone. Listens on 127.0.0.31-33; traffic stays on loopback.
"""

import asyncio
import contextlib
import hashlib
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

BINARY = sys.argv[1] if len(sys.argv) > 1 else "target/release/p2pfaas"
STREAMS = int(os.environ.get("STREAMS", "1000"))
SECONDS = float(os.environ.get("SECONDS_EACH", "60"))
BODY_BYTES = 1 << 30
NODE_BYTES = 64 << 20
FUNCTION, ENTRY, WORKER = "127.0.0.31", "127.0.0.32", "127.0.0.33"
FORWARD = "X-P2pfaas-Scheduler-Forward: 1\r\n"
PIECE = bytes(range(256)) * 1024


async def head_of(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    return head.split("\r\n")


def length_of(head):
    told = [line.split(":")[1] for line in head if line.startswith("content-length:")]
    return int(told[0]) if told else 0


# The function: events, a long answer, or a sum over a long body.
async def function(reader, writer):
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        while True:
            head = await head_of(reader)
            method, path, _ = head[0].split(" ")
            if path.startswith("/events"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                while True:
                    event = b"data: %.9f\n\n" % time.monotonic()
                    writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                    await writer.drain()
                    await asyncio.sleep(1)
            if path.startswith("/once"):
                # The head first, and what is measured some time after it.
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                await asyncio.sleep(0.05)
                event = b"%.9f" % time.monotonic()
                writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event))
            elif method == "get":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES)
                for _ in range(BODY_BYTES // len(PIECE)):
                    writer.write(PIECE)
                    await writer.drain()
            else:
                told = (await digest(reader, length_of(head))).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told))
            await writer.drain()
    writer.close()


async def digest(reader, length):
    sum_of, left = hashlib.blake2b(), length
    while left:
        piece = await reader.read(min(left, 1 << 20))
        if not piece:
            raise SystemExit(f"{left} of {length} bytes never came")
        sum_of.update(piece)
        left -= len(piece)
    return sum_of.hexdigest()


def limited(name):
    """Puts the process into a control group of 64 MiB, like `docker run --memory 64m`."""
    root = pathlib.Path("/sys/fs/cgroup")
    new = (root / "cgroup.controllers").exists()
    group = root / ("" if new else "memory") / f"p2pfaas-bench-{name}"
    group.mkdir(exist_ok=True)
    (group / ("memory.max" if new else "memory.limit_in_bytes")).write_text(str(NODE_BYTES))
    return lambda: (group / "cgroup.procs").write_text(str(os.getpid()))


@contextlib.contextmanager
def nodes(work, k, small):
    started = {}
    try:
        for me, other in ((ENTRY, WORKER), (WORKER, ENTRY)):
            before = None
            if small:
                before = limited(me)
            log = open(work / f"{me}.log", "ab")
            started[me] = subprocess.Popen(
                [BINARY, "node", "--host", me, "--data-path", work / me, "--init-server", other,
                 "--workers", "2", "--scheduler", "NoScheduler false", "--k", str(k),
                 "--route", f"fn=http://{FUNCTION}:18995/"],
                stdout=log, stderr=log, preexec_fn=before)
        yield started
    finally:
        for process in started.values():
            process.terminate()
        for process in started.values():
            process.wait(30)


async def connect():
    # A limit of the reader's buffer that bounds what this program holds.
    return await asyncio.open_connection(ENTRY, 18080, limit=1 << 18)


async def ask(path, more="", method="GET"):
    reader, writer = await connect()
    writer.write(f"{method} /function/fn{path} HTTP/1.1\r\nHost: {ENTRY}\r\n{more}\r\n".encode())
    return reader, writer


async def ready():
    """Waits until a forwarded call streams."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await ask("/once", FORWARD + "Connection: close\r\n")
            answer = await reader.read()
            writer.close()
            if b"externally-executed" in answer.lower():
                # Peers learn with the next poll that calls between them stream.
                await asyncio.sleep(3)
                return
        await asyncio.sleep(0.2)
    raise SystemExit("the nodes do not forward")


def resident_kib(process, field="VmRSS"):
    for line in open(f"/proc/{process.pid}/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1])


async def first_byte(more):
    delays = []
    for _ in range(200):
        reader, writer = await ask("/once", more)
        await head_of(reader)
        await reader.readline()
        sent = float(await reader.readline())
        delays.append((time.monotonic() - sent) * 1000)
        writer.close()
    delays.sort()
    return statistics.median(delays), delays[int(len(delays) * 0.99)]


async def stream(counts):
    reader, writer = await ask("/events")
    await head_of(reader)
    counts["open"] += 1
    try:
        while True:
            line = await reader.readline()
            if not line:
                counts["lost"] += 1
                return
            counts["events"] += line.startswith(b"data:")
    finally:
        writer.close()


async def events(started):
    before = resident_kib(started[ENTRY])
    counts = {"open": 0, "events": 0, "lost": 0}
    tasks = []
    for _ in range(STREAMS):
        tasks.append(asyncio.create_task(stream(counts)))
        if len(tasks) % 50 == 0:
            await asyncio.sleep(0.05)
    await asyncio.sleep(SECONDS)
    after = resident_kib(started[ENTRY])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    each = (after - before) / STREAMS
    print(f"{counts['open']} event streams for {SECONDS:.0f} s: {each:.1f} KiB each (bar: at most 40), "
          f"{counts['events']} events, {counts['lost']} streams lost (bar: 0)")


async def long_bodies(started):
    want = hashlib.blake2b()
    for _ in range(BODY_BYTES // len(PIECE)):
        want.update(PIECE)
    reader, writer = await ask("/long", FORWARD)
    head = await head_of(reader)
    assert any("externally-executed" in line for line in head), head
    down = await digest(reader, length_of(head)) == want.hexdigest()
    writer.close()
    reader, writer = await ask("/long", f"{FORWARD}Content-Length: {BODY_BYTES}\r\n", "POST")
    for _ in range(BODY_BYTES // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()
    head = await head_of(reader)
    assert any("externally-executed" in line for line in head), head
    up = (await reader.readexactly(length_of(head))).decode() == want.hexdigest()
    writer.close()
    peaks = [f"{resident_kib(process, 'VmHWM') / 1024:.1f}" for process in started.values()]
    print(f"1 GiB down and up through two nodes of 64 MiB: whole {down} and {up}; at most {' and '.join(peaks)} "
          "MiB resident (bar: at most 40)")


async def main():
    server = await asyncio.start_server(function, FUNCTION, 18995, limit=1 << 18, backlog=2048)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        with nodes(work, 100_000, small=False) as started:
            await ready()
            for name, more in (("here", ""), ("forwarded", FORWARD)):
                median, p99 = await first_byte(more)
                print(f"from the function's first byte to the client's, {name}: median {median:.2f} ms, "
                      f"99 % {p99:.2f} ms (bar: at most 5)")
            await events(started)
        with nodes(work, 4, small=True) as started:
            await ready()
            await long_bodies(started)
    server.close()


asyncio.run(main())
