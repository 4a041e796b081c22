#!/usr/bin/env python3
"""A cluster with a key under attack by those that do not have it, and while its key is changed.

Nodes run on addresses of loopback. Usage, from the repository's folder, as root (packets of loopback are read):

    benches/trust.py strangers [BINARY]     # rubbish, changed and repeated datagrams and first words of TLS
    benches/trust.py rotation [BINARY]      # the key is changed three times under 500 calls/s over twelve nodes

COUNT is how many changed datagrams are sent in all (1000000). See benches/README.md.
"""

import http.client
import json
import os
import queue
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

BASE = "127.44.0."
TLS_PORT, SWIM_PORT = 18443, 19000
COUNT = int(os.environ.get("COUNT", 1_000_000))


class Cluster:
    """Nodes with a key, each with a file of its own for it."""

    def __init__(self, binary, count, scheduler):
        self.binary = binary
        self.folder = tempfile.mkdtemp(prefix="p2pfaas-trust-")
        self.keys = [self.new_key()]
        self.processes = {}
        for n in range(1, count + 1):
            self.start(n, scheduler)

    def new_key(self):
        return subprocess.check_output([self.binary, "key", "new"], text=True).strip()

    def key_file(self, n):
        return f"{self.folder}/{n}.key"

    def write_keys(self, n, keys):
        # In one step, as a node may look at any moment.
        with open(f"{self.key_file(n)}.new", "w") as file:
            file.write("\n".join(keys) + "\n")
        os.replace(f"{self.key_file(n)}.new", self.key_file(n))

    def start(self, n, scheduler):
        self.write_keys(n, self.keys[-1:])
        environment = dict(os.environ, P2PFAAS_CLUSTER_KEY_FILE=self.key_file(n))
        log = open(f"{self.folder}/{n}.log", "w")
        self.processes[n] = subprocess.Popen(
            [self.binary, "node", "--host", f"{BASE}{n}", "--data-path", f"{self.folder}/{n}",
             "--init-server", f"{BASE}1", "--embedded-functions", "--workers", "1", "--k", "64",
             "--scheduler", scheduler],
            env=environment, stderr=log)

    def get(self, n, path, port=18080):
        connection = http.client.HTTPConnection(f"{BASE}{n}", port, timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse().read().decode()
        connection.close()
        return answer

    def listed(self, n):
        return sorted(machine["ip"] for machine in json.loads(self.get(n, "/list", 19000)))

    def right(self):
        """Whether everybody lists everybody else and nobody more."""
        for n in self.processes:
            if self.listed(n) != sorted(f"{BASE}{m}" for m in self.processes if m != n):
                return False
        return True

    def until_right(self, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self.right():
                    return
            except OSError:
                pass
            time.sleep(0.2)
        sys.exit("the nodes do not know each other")

    def counter(self, n, name):
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.get(n, "/metrics").splitlines()
                   if line.startswith(name))

    def cpu_s(self, n):
        fields = open(f"/proc/{self.processes[n].pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_kib(self, n):
        for line in open(f"/proc/{self.processes[n].pid}/status"):
            if line.startswith("VmRSS"):
                return int(line.split()[1])

    def check(self):
        """Nothing has crashed, panicked, or been started again."""
        for n, process in self.processes.items():
            assert process.poll() is None, f"node {n} is gone"
            assert "panicked" not in open(f"{self.folder}/{n}.log").read(), f"node {n} panicked"
            assert self.counter(n, "p2pfaas_actor_restarts_total") == 0, f"an actor of node {n}"

    def end(self):
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.wait()
        shutil.rmtree(self.folder)


def overheard(seconds):
    """What members say to node 1 on loopback: datagrams, and the first words of connections by TLS."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    raw.bind(("lo", 0))
    raw.settimeout(0.2)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    datagrams, hellos, deadline = [], [], time.monotonic() + seconds
    target = socket.inet_aton(f"{BASE}1")
    while time.monotonic() < deadline:
        try:
            packet = raw.recv(65536)
        except TimeoutError:
            continue
        if packet[16:20] != target:
            continue
        head = (packet[0] & 15) * 4
        port = int.from_bytes(packet[head + 2:head + 4], "big")
        if packet[9] == 17 and port == SWIM_PORT:
            datagrams.append((socket.inet_ntoa(packet[12:16]), packet[head + 8:]))
        elif packet[9] == 6 and port == TLS_PORT:
            said = packet[head + (packet[head + 12] >> 4) * 4:]
            if said[:1] == b"\x16" and said[5:6] == b"\x01":
                hellos.append(said)
    raw.close()
    # Loopback shows each packet twice.
    return list(dict.fromkeys(datagrams)), list(dict.fromkeys(hellos))


def changed(chance, said):
    """`said` with a few bytes changed, cut or made longer; now and then rubbish."""
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(1, 1400))
    said = bytearray(said)
    for _ in range(chance.randrange(1, 5)):
        said[chance.randrange(len(said))] ^= chance.randrange(1, 256)
    if chance.random() < 0.2:
        del said[chance.randrange(1, len(said)):]
    if chance.random() < 0.1:
        said += chance.randbytes(chance.randrange(1, 300))
    return bytes(said)


def paced(rate, seconds, act):
    """Acts so many times a second."""
    began, done = time.monotonic(), 0
    while done < rate * seconds:
        due = min(int((time.monotonic() - began) * rate) + 1, rate * seconds)
        while done < due:
            act()
            done += 1
        time.sleep(0.001)


def knock(said, at=(f"{BASE}1", TLS_PORT)):
    try:
        with socket.create_connection(at, timeout=2) as connection:
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    except OSError:
        pass


class Nginx:
    """A server of TLS to compare with, one worker."""

    at = (f"{BASE}200", TLS_PORT)

    def __init__(self, folder):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-subj", "/CN=x", "-keyout", f"{folder}/nginx.key", "-out", f"{folder}/nginx.pem"],
            check=True, capture_output=True)
        with open(f"{folder}/nginx.conf", "w") as file:
            file.write(
                f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null;"
                "events { worker_connections 4096; }"
                f"http {{ access_log off; server {{ listen {self.at[0]}:{self.at[1]} ssl;"
                f" ssl_certificate {folder}/nginx.pem; ssl_certificate_key {folder}/nginx.key; }} }}")
        self.master = subprocess.Popen(["nginx", "-p", folder, "-c", f"{folder}/nginx.conf"],
                                       stderr=subprocess.DEVNULL)
        time.sleep(1)
        children = open(f"/proc/{self.master.pid}/task/{self.master.pid}/children").read().split()
        self.worker = int(children[0])

    def cpu_s(self):
        fields = open(f"/proc/{self.worker}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.master.terminate()
        self.master.wait()


def strangers(binary):
    cluster = Cluster(binary, 3, "PowerOfNScheduler 1 2 true 1")
    cluster.until_right()
    datagrams, hellos = overheard(20)
    print(f"overheard {len(datagrams)} datagrams and {len(hellos)} first words by TLS")
    chance = random.Random(1)
    out = {}
    for source, _ in datagrams:
        if source not in out:
            # From where members send: only so would the rest of a node ever look at them.
            out[source] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            out[source].bind((source, 0))

    def send(source, said):
        out[source].sendto(said, (f"{BASE}1", SWIM_PORT))

    def idle(seconds=20):
        before, began = cluster.cpu_s(1), time.monotonic()
        time.sleep(seconds)
        return (cluster.cpu_s(1) - before) / (time.monotonic() - began) * 100

    def cost(what, rate, seconds, act):
        quiet = idle(10)
        before, began = cluster.cpu_s(1), time.monotonic()
        paced(rate, seconds, act)
        used = (cluster.cpu_s(1) - before) / (time.monotonic() - began) * 100
        cluster.check()
        assert cluster.right(), what
        print(f"{what}, {rate}/s: {used - quiet:.2f} % of a core (idle {quiet:.2f} %)", flush=True)

    def mutant():
        source, said = chance.choice(datagrams)
        return source, changed(chance, said)

    cost("changed datagrams", 1000, 20, lambda: send(*mutant()))
    cost("repeated datagrams", 1000, 20, lambda: send(*chance.choice(datagrams)))
    cost("changed first words", 1000, 20, lambda: knock(changed(chance, chance.choice(hellos))))
    cost("repeated first words", 1000, 20, lambda: knock(chance.choice(hellos)))
    cost("connections that say nothing", 1000, 20, lambda: knock(b""))

    if shutil.which("nginx") and shutil.which("openssl"):
        nginx = Nginx(cluster.folder)
        for what, said in [("changed first words", None), ("connections that say nothing", b"")]:
            before, began = nginx.cpu_s(), time.monotonic()
            paced(1000, 20, lambda: knock(changed(chance, chance.choice(hellos)) if said is None else said, nginx.at))
            used = (nginx.cpu_s() - before) / (time.monotonic() - began) * 100
            print(f"{what}, 1000/s, to nginx: {used:.2f} % of a core", flush=True)
        nginx.end()

    memory = cluster.memory_kib(1)
    for what, count, act in [
        ("changed datagrams", COUNT, lambda: send(*mutant())),
        ("repeated datagrams", COUNT // 10, lambda: send(*chance.choice(datagrams))),
        ("changed first words", COUNT // 10, lambda: knock(changed(chance, chance.choice(hellos)))),
    ]:
        before, began = cluster.cpu_s(1), time.monotonic()
        for n in range(count):
            act()
            if n % 10_000 == 0:
                assert cluster.processes[1].poll() is None, f"after {n} {what}"
        cluster.check()
        cluster.until_right(10)
        took = time.monotonic() - began
        print(f"{count} {what} in {took:.0f} s: nothing changed; "
              f"{(cluster.cpu_s(1) - before) / count * 1e6:.1f} us of processor time each", flush=True)
    for kind in ("unsealed", "replayed", "clock", "stranger", "bad_head", "slow_head"):
        name = 'p2pfaas_refusals_total{kind="' + kind
        print(f"refused as {kind}: {cluster.counter(1, name):.0f}")
    print(f"memory of the node: {memory} KiB before, {cluster.memory_kib(1)} KiB after")
    cluster.end()


def rotation(binary):
    count, rate = 12, 500
    cluster = Cluster(binary, count, "PowerOfNScheduler 1 0 true 1")
    cluster.until_right()
    calls, results, missing, stop = queue.SimpleQueue(), [], [], threading.Event()

    def caller():
        connections = {}
        while (due := calls.get()) is not None:
            n = random.randrange(1, count + 1)
            if n not in connections:
                connections[n] = http.client.HTTPConnection(f"{BASE}{n}", 18080, timeout=10)
            try:
                # Half of them go to another node in any case.
                headers = {"X-P2pfaas-Scheduler-Forward": "1"} if random.random() < 0.5 else {}
                connections[n].request("POST", "/function/fn-echo", b"x", headers)
                answer = connections[n].getresponse()
                good = answer.read() == b"x" and answer.status == 200
                results.append((time.monotonic() - due, good, answer.status))
            except OSError as why:
                connections.pop(n)
                results.append((time.monotonic() - due, False, repr(why)))

    def pace():
        began, done = time.monotonic(), 0
        while not stop.is_set():
            due = int((time.monotonic() - began) * rate)
            while done < due:
                calls.put(began + done / rate)
                done += 1
            time.sleep(0.002)

    def watch():
        while not stop.is_set():
            for n in cluster.processes:
                if len(cluster.listed(n)) != count - 1:
                    missing.append((n, cluster.listed(n)))
            time.sleep(0.2)

    threads = [threading.Thread(target=caller) for _ in range(16)]
    others = [threading.Thread(target=pace), threading.Thread(target=watch)]
    for thread in threads + others:
        thread.start()
    time.sleep(10)
    before = len(results)
    for turn in range(3):
        old, new = cluster.keys[-1], cluster.new_key()
        cluster.keys.append(new)
        for keys in ([old, new], [new, old], [new]):
            for n, process in cluster.processes.items():
                cluster.write_keys(n, keys)
                process.send_signal(signal.SIGHUP)
                time.sleep(0.1)
            # All have taken this step before the next one.
            time.sleep(2)
        print(f"rotation {turn + 1} done, {len(results)} calls so far", flush=True)
    during = len(results)
    time.sleep(10)
    stop.set()
    for _ in threads:
        calls.put(None)
    for thread in threads + others:
        thread.join()
    lost = [result for result in results if not result[1]]
    cluster.check()

    def p99_ms(part):
        return statistics.quantiles((took for took, *_ in part), n=100)[98] * 1000

    print(f"{len(results)} calls, {len(lost)} lost {lost[:3]}; "
          f"{len(missing)} times a member was missing on a list {missing[:2]}")
    print(f"p99 before {p99_ms(results[:before]):.1f} ms, during {p99_ms(results[before:during]):.1f} ms, "
          f"after {p99_ms(results[during:]):.1f} ms")
    cluster.end()


if __name__ == "__main__":
    parts = {"strangers": strangers, "rotation": rotation}
    if len(sys.argv) < 2 or sys.argv[1] not in parts:
        sys.exit(__doc__)
    parts[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else "target/release/p2pfaas")
