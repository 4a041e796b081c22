#!/usr/bin/env python3
"""How fast PortfolioScheduler answers, on twelve real nodes. See docs/which-scheduler.md.

Usage: benches/portfolio.py. Needs Python alone, for the part `loss` also root, iptables and unshare. Each part starts
`p2pfaas cluster 12`, sends it calls by `p2pfaas bench run`, and prints table rows: what was measured, its bar, and
whether it was met. PARTS (with blanks between them) selects:

    step    calls come 1.5 times as often from one moment on, which makes the other of two arms the better one: epochs
            until that one is in force, and how often it is from then on
    join    a thirteenth node comes: epochs until it has the same arm in force as the others
    loss    of the datagrams in which nodes tell their records, 10 % are lost: what that changes of calls in time

All parts take 22 minutes. Traffic stays on 127.0.0.1-13, for `loss` in a network namespace of its own. P2PFAAS: the
binary, instead of target/release/p2pfaas.
"""

import contextlib
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

BINARY = os.environ.get("P2PFAAS", "target/release/p2pfaas")
ALL_PARTS = "step join loss"
PARTS = os.environ.get("PARTS", ALL_PARTS).split()

NODES = [f"127.0.0.{n}" for n in range(1, 13)]
EPOCH_S = 5
# Of these two, the first is better at the published load, and the other at 1.5 times that.
ARMS = ["PowerOfNScheduler 1 2 true 1", "NoScheduler true"]
RATES = [8, 8.5, 9, 9.5, 10, 10.5, 11, 12, 12.5, 13, 13.5, 14]
CALM_S, BUSY_S, STEP = 300, 200, 1.5
BAR_STEP, BAR_JOIN, BAR_LOSS = 10, 2, 0.01
LOSS = 0.1

SCENARIO = """
name = "portfolio"
fleet = "fleet.toml"
function = "fn-work"
payloads = [
    { name = "large", mix = 50, task_type = 0, query = "dist=constant&mean_ms=150" },
    { name = "small", mix = 50, task_type = 1, query = "dist=constant&mean_ms=60" },
]
deadlines_s = [0.188, 0.075]
"""
DEADLINES_S = [0.188, 0.075]


@contextlib.contextmanager
def started(*arguments, log):
    with open(log, "w") as out:
        process = subprocess.Popen(arguments, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def memory_of(node):
    """What the algorithm of that node has learnt; nothing while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{node}:19020/learner/stats", timeout=1) as answer:
            return json.load(answer)["scheduler"]["memory"]
    except (OSError, KeyError, TypeError, ValueError):
        return None


def until(what, is_so, patience_s=30):
    deadline = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"never: {what}")
        time.sleep(0.1)


@contextlib.contextmanager
def cluster(folder):
    (folder / "fleet.toml").write_text(
        f"k = 3\nqueue_length = 2\nqueue_enabled = true\nnodes = {json.dumps(NODES)}\n")
    with started(BINARY, "cluster", "12", log=folder / "cluster.log"):
        until("the cluster answers", lambda: all(listed(node) >= 11 for node in NODES))
        subprocess.run([BINARY, "fleet", "apply", folder / "fleet.toml"], check=True, stdout=subprocess.DEVNULL)
        yield


def listed(node):
    try:
        with urllib.request.urlopen(f"http://{node}:19000/list", timeout=1) as answer:
            return len(json.load(answer))
    except (OSError, ValueError):
        return 0


def bench(folder, scheduler, keys):
    """Runs the scenario with these further keys; gives the file of its results."""
    (folder / "scenario.toml").write_text(f"{SCENARIO}schedulers = [{json.dumps(scheduler)}]\n{keys}\n")
    output = folder / "out"
    arguments = [BINARY, "bench", "run", folder / "scenario.toml", "--output", output]
    with open(folder / "bench.log", "w") as log:
        subprocess.run(arguments, check=True, stdout=log, stderr=log)
    return output / "run-01.db"


def in_time(results, *, after_s=0.0, before_s=float("inf")):
    """The share of calls in time, of those that were sent in that part of the run."""
    with contextlib.closing(sqlite3.connect(results)) as db:
        rows = db.execute("SELECT timestamp_start, time_total, type_id, res_status_code FROM jobs").fetchall()
    began = min(row[0] for row in rows)
    part = [row for row in rows if after_s <= row[0] - began < before_s]
    good = [row for row in part if row[3] == 200 and row[1] <= DEADLINES_S[row[2]]]
    return len(good) / len(part)


class Watch:
    """Which arm is in force at each node, epoch by epoch, from now on."""

    def __init__(self, nodes):
        self.nodes, self.seen, self.over = nodes, {}, threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.over.wait(0.5):
            for node in self.nodes:
                if memory := memory_of(node):
                    at = self.seen.setdefault(memory["epoch"], {"at": time.time(), "arms": {}})
                    at["arms"][node] = memory["in_force_arm"]

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def table_row(what, bar, measured, met):
    return what, bar, measured, "met" if met else "missed"


def step(folder):
    for index, rate in enumerate(RATES):
        values = [rate] * (CALM_S // 5) + [rate * STEP] * (BUSY_S // 5)
        lines = [f"{at},{value / 21}" for at, value in enumerate(values)]
        (folder / f"node_{index}.csv").write_text("\n".join(lines) + "\n")
    keys = f'duration_s = {CALM_S + BUSY_S}\ntraces = "node_{{n}}.csv"\nmin_load = 0\nmax_load = 21'
    with cluster(folder), Watch(NODES) as watch:
        results = bench(folder, f"PortfolioScheduler {EPOCH_S}s {'|'.join(ARMS)}", keys)
    with contextlib.closing(sqlite3.connect(results)) as db:
        stepped = db.execute("SELECT MIN(timestamp_start) FROM jobs").fetchone()[0] + CALM_S
    epochs = sorted(watch.seen.items())
    arms = [(number, at["at"] - stepped, list(at["arms"].values())) for number, at in epochs]
    print("".join(arm_letter(arms_then) + ("|" if -EPOCH_S <= since < 0 else "") for _, since, arms_then in arms),
          file=sys.stderr)
    after = [arms_then for _, since, arms_then in arms if 0 <= since < BUSY_S - EPOCH_S]
    is_new = [all(arm == 1 for arm in arms_then) for arms_then in after]
    first = is_new.index(True) + 1 if True in is_new else None
    later = is_new[BAR_STEP:]
    held = sum(later) / len(later)
    shares = (in_time(results, after_s=CALM_S / 2, before_s=CALM_S), in_time(results, after_s=CALM_S + 50))
    agreed = sum(len(set(arms_then)) == 1 for _, _, arms_then in arms) / len(arms)
    yield table_row("calls × 1.5: epochs until the other arm is in force everywhere", f"≤ {BAR_STEP}",
                    f"{first}; in force in {100 * held:.0f} % of the epochs from the {BAR_STEP + 1}th on",
                    first is not None and first <= BAR_STEP)
    print(f"in time before and after: {shares}; one arm everywhere in {100 * agreed:.1f} % of the epochs", file=sys.stderr)


def arm_letter(arms):
    """An epoch in a letter: its arm, or `?` where nodes differ."""
    return str(arms[0]) if len(set(arms)) == 1 else "?"


def join(folder):
    keys = f"duration_s = 120\nrates = {RATES}"
    scheduler = f"PortfolioScheduler {EPOCH_S}s {'|'.join(ARMS)}"
    comer, found = "127.0.0.13", []

    def come():
        time.sleep(60)
        arguments = [BINARY, "node", "--host", comer, "--embedded-functions", "--workers", "1", "--init-server", NODES[0],
                     "--data-path", str(folder / "comer"), "--scheduler", scheduler]
        with started(*arguments, log=folder / "comer.log"), Watch([*NODES, comer]) as watch:
            time.sleep(45)
        found.append(watch)

    with cluster(folder):
        coming = threading.Thread(target=come)
        coming.start()
        bench(folder, scheduler, keys)
        coming.join()
    epochs = sorted(found[0].seen.items())
    with_it = [(number, at["arms"]) for number, at in epochs if comer in at["arms"] and len(at["arms"]) > len(NODES) / 2]
    agrees = [(number, len(set(arms.values())) == 1) for number, arms in with_it]
    # Its own epochs before it has heard the others' have other numbers.
    alone = [number for number, at in epochs if list(at["arms"]) == [comer]]
    wrong = [number for number, agreed in agrees if not agreed]
    took = len(alone) + (wrong[-1] - agrees[0][0] + 1 if wrong else 0)
    print(f"alone in epochs {alone}; with the others in {agrees}", file=sys.stderr)
    yield table_row("a node joins: epochs until it has the others' arm in force for good", f"≤ {BAR_JOIN}", f"{took}",
                    took <= BAR_JOIN and len(agrees) >= 5)


def loss(folder):
    """In a namespace of its own, where datagrams can be dropped."""
    if not os.environ.get("APART"):
        part = {**os.environ, "APART": "yes", "PARTS": "loss", "P2PFAAS": os.path.abspath(BINARY)}
        rows = subprocess.run(["unshare", "--net", sys.executable, __file__], env=part, check=True, stdout=subprocess.PIPE)
        for line in rows.stdout.decode().splitlines()[2:]:
            yield tuple(cell.strip() for cell in line.strip("|").split("|"))
        return
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    shares = []
    for lost in (0.0, LOSS):
        if lost:
            rule = ["-p", "udp", "-m", "statistic", "--mode", "random", "--probability", str(lost), "-j", "DROP"]
            subprocess.run(["iptables", "-A", "INPUT", *rule], check=True, stderr=subprocess.DEVNULL)
        part = folder / str(lost)
        part.mkdir()
        with cluster(part):
            results = bench(part, "PortfolioScheduler", f"duration_s = 180\nlearner_warm_up_s = 60\nrates = {RATES}")
        shares.append(in_time(results))
    changed = abs(shares[0] - shares[1])
    yield table_row("10 % of records lost: change of the share in time", f"≤ {100 * BAR_LOSS:.0f} point",
                    f"{100 * changed:.2f} points ({100 * shares[0]:.1f} and {100 * shares[1]:.1f} %)", changed <= BAR_LOSS)


def main():
    for part in PARTS:
        if part not in ALL_PARTS.split():
            raise SystemExit(f"{part} is none of {ALL_PARTS}")
    if not os.access(BINARY, os.X_OK):
        raise SystemExit(f"{BINARY} is missing: cargo build --release")
    print("| what | bar | measured | |")
    print("|---|---|---|---|", flush=True)
    for part in PARTS:
        with tempfile.TemporaryDirectory() as folder:
            for row in globals()[part](pathlib.Path(folder)):
                print("| " + " | ".join(row) + " |", flush=True)


main()
