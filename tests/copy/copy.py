#!/usr/bin/env python3
"""Exactly-once under kills; scripts/transactional-copy.sh brings what it needs.

A producer (tests/soak/producer.py) fills a topic whose n-th record of a partition says so. Workers (worker.py with
librdkafka, Worker.java with kafka-clients, processes of their own) copy it into another topic, each batch of records and
the offsets of their group in one transaction. At random they are killed, stopped for longer than their session and their
transaction may last, and replaced while they are stopped by another one with the same transactional id; now and then they
abort by their own will; and the broker is killed with -9 and started again. None of it shares code with the broker. It
checks that

  once      readers of committed records find each input record exactly once in the output, those who read while all
            this happens and those who read everything at the end; and within a partition in the order of the input
  aborted   readers of uncommitted records found more than that: else nothing was tried
  offsets   the group's offsets are the ends of the input
  end       no transaction is left open, and everybody stops in order

Prints the seed first and a line every ten seconds on standard error; exits 1 if something was wrong."""

import argparse
import json
import os
import pathlib
import queue
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--ottla", required=True, type=pathlib.Path, help="the binary")
ap.add_argument("--minutes", type=float, default=10)
ap.add_argument("--seed", type=int, default=None)
ap.add_argument("--workers", type=int, default=4)
ap.add_argument("--java", help="the command of Worker.java: every second worker is one")
ap.add_argument("--partitions", type=int, default=6)
ap.add_argument("--shards", type=int, default=2)
ap.add_argument("--rate", type=float, default=500, help="records a second")
ap.add_argument("--kill-every", type=float, default=30, help="seconds between kills of the broker; 0: never")
ap.add_argument("--event-every", type=float, default=4, help="seconds between events of workers, on average")
ap.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a config of the broker")
ap.add_argument("--dir", type=pathlib.Path, help="where data and logs go and stay; else a temporary directory")
ap.add_argument("--json", action="store_true", help="the summary as JSON on standard output")
a = ap.parse_args()

HERE = pathlib.Path(__file__).resolve().parent
INPUT, OUTPUT, GROUP = "input", "output", "copy"
TIMEOUT_MS = 8000  # Of transactions. Sessions are of 6 s.
CATCH_UP_S = 180
SETTINGS = (
    "group.initial.rebalance.delay.ms=300", "transaction.abort.timed.out.transaction.cleanup.interval.ms=500",
    # Segments that are rolled and compacted meanwhile.
    "log.segment.bytes=4194304", "offsets.topic.segment.bytes=262144", "transaction.state.log.segment.bytes=262144",
    "log.cleaner.backoff.ms=1000")
seed = a.seed if a.seed is not None else random.SystemRandom().randrange(2**32)
rng = random.Random(seed)
work = a.dir or pathlib.Path(tempfile.mkdtemp(prefix="copy-"))
work.mkdir(parents=True, exist_ok=True)
events = queue.Queue()
violations = []
counts = dict.fromkeys(("started", "killed", "stopped", "replaced", "broker_kills", "transactions", "copied"), 0)
aborts, given_up = {}, {}


def say(text):
    print(text, file=sys.stderr, flush=True)


def wrong(what, text):
    violations.append({"at_s": round(time.monotonic() - began, 1), "what": what, "text": text})
    say(f"WRONG {what}: {text}")


class Process:
    """A program whose lines become events (process, kind, words)."""

    def __init__(self, name, *command):
        self.name, self.has_spoken, self.resume_at = name, False, None
        self.stderr = open(work / f"{name}.err", "ab")
        self.popen = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=self.stderr, text=True)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.popen.stdout:
            self.has_spoken = True
            words = line.split()
            if line.endswith("\n") and len(words) >= 2:  # The last line of a killed one may be cut.
                events.put((self, words[0], words[2:]))

    def signal(self, number):
        if self.popen.poll() is None:
            self.popen.send_signal(number)

    def end(self, wait_s):
        """Asks it to stop and expects that it does so in order."""
        self.signal(signal.SIGTERM)
        try:
            code = self.popen.wait(wait_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            code = f"none within {wait_s} s"
        if code != 0 and not (code in (-signal.SIGTERM, 143) and not self.has_spoken):
            tail = (work / f"{self.name}.err").read_text(errors="replace")[-500:]
            wrong("end", f"{self.name} ended with code {code}: {tail}")


class Broker:
    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.start()

    def start(self):
        with open(work / "broker.log", "ab") as log:
            self.popen = subprocess.Popen(
                [a.ottla, "serve", "--data-dir", work / "data", "--listen", self.address, "--shards", str(a.shards),
                 *(word for pair in (*SETTINGS, *a.set) for word in ("--set", pair))], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                for shard in range(a.shards):
                    socket.create_connection(("127.0.0.1", self.port + shard), 1).close()
                return
            except OSError:
                if self.popen.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the broker does not start: see {work / 'broker.log'}")
                time.sleep(0.05)

    def kill(self):
        self.popen.kill()
        self.popen.wait()


class Slot:
    """A transactional id, and the worker that has it or should."""

    def __init__(self, number):
        self.number, self.generation, self.worker, self.start_at = number, 0, None, 0.0

    def start(self):
        self.generation += 1
        is_java = a.java and self.number % 2
        program = a.java.split() if is_java else (sys.executable, HERE / "worker.py")
        self.worker = Process(f"worker-{self.number}-{self.generation}", *program, broker.address, GROUP, INPUT, OUTPUT,
                              f"id-{self.number}", TIMEOUT_MS, rng.randrange(2**31))
        workers.append(self.worker)
        counts["started"] += 1


class Copied:
    """What a reader has found of the output: for each partition the numbers of the input's records, in order."""

    def __init__(self, name, isolation):
        self.name, self.numbers, self.has_ended = name, [[] for _ in range(a.partitions)], threading.Event()
        self.consumer = Consumer({**COMMON, "group.id": name, "isolation.level": isolation, "enable.auto.commit": False,
                                  "enable.partition.eof": True, "check.crcs": True})
        self.consumer.assign([TopicPartition(OUTPUT, p, 0) for p in range(a.partitions)])
        self.at_end = set()

    def read(self, timeout):
        for message in self.consumer.consume(1000, timeout):
            if message.error():
                self.at_end.add(message.partition())
                continue
            self.at_end.discard(message.partition())
            _, p, n = message.value().split()[:3]
            if int(p) != message.partition():
                wrong("once", f"{self.name}: a record of partition {p} is in {message.partition()}")
            self.numbers[message.partition()].append(int(n))

    def follow(self):
        while not self.has_ended.is_set():
            self.read(0.3)

    def judge(self):
        """Each once, in order."""
        for p, numbers in enumerate(self.numbers):
            if numbers == list(range(acked[p])):
                continue
            at = next((i for i, n in enumerate(numbers) if n != i), len(numbers))
            wrong("once", f"{self.name}: partition {p} has {len(numbers)} of {acked[p]}; from {at} on: {numbers[at:at + 5]}; "
                  f"{len(numbers) - len(set(numbers))} more than once, {len(set(range(acked[p])) - set(numbers))} missing")


acked = [0] * a.partitions


def handle(process, kind, words):
    if kind == "wrong":
        wrong("input", f"{process.name}: {' '.join(words)}")
    elif kind == "acked":
        for pair in filter(None, "".join(words).split(",")):
            p, count = map(int, pair.split(":"))
            acked[p] = count
    elif kind == "committed":
        counts["transactions"] += 1
        counts["copied"] += int(words[0])
    elif kind == "aborted":
        aborts[words[1]] = aborts.get(words[1], 0) + 1
    elif kind == "gave_up":
        given_up[words[0]] = given_up.get(words[0], 0) + 1


def run_for(seconds):
    """Handles events meanwhile."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            handle(*events.get(timeout=left))
        except queue.Empty:
            break


def happen():
    """One thing to one worker."""
    slot = rng.choice(slots)
    if not slot.worker or slot.worker.resume_at or not slot.worker.has_spoken:
        return
    what = rng.choice(("kill", "kill", "stop", "replace"))
    now = time.monotonic()
    if what == "kill":
        counts["killed"] += 1
        slot.worker.signal(signal.SIGKILL)
        slot.worker, slot.start_at = None, now + rng.uniform(0, 3)
        return
    counts["stopped" if what == "stop" else "replaced"] += 1
    slot.worker.signal(signal.SIGSTOP)
    slot.worker.resume_at = now + rng.uniform(0.5, 1.5 * TIMEOUT_MS / 1000)
    if what == "replace":
        # Two of them, of which the older wakes up with a transaction under way.
        slot.start()


def due(now):
    """What was put off: workers that go on or are started."""
    for worker in workers:
        if worker.resume_at and worker.resume_at < now:
            worker.signal(signal.SIGCONT)
            worker.resume_at = None
    for slot in slots:
        if slot.worker and slot.worker.popen.poll() is not None:
            if slot.worker.popen.returncode != 3:
                tail = (work / f"{slot.worker.name}.err").read_text(errors="replace")[-500:]
                wrong("end", f"{slot.worker.name} ended by itself with code {slot.worker.popen.returncode}: {tail}")
            slot.worker, slot.start_at = None, now + rng.uniform(0, 1)
        if not slot.worker and slot.start_at < now:
            slot.start()


def progress():
    say(f"{time.monotonic() - began:5.0f} s  input {sum(acked)}  read {sum(map(len, live.numbers))}  transactions "
        f"{counts['transactions']}  aborted {sum(aborts.values())}  given up {sum(given_up.values())}  killed "
        f"{counts['killed']}  broker kills {counts['broker_kills']}  wrong {len(violations)}")


def run():
    now = time.monotonic()
    end, next_event, next_kill, next_line = now + a.minutes * 60, now + 5, now + (a.kill_every or 1e9), now + 10
    while (now := time.monotonic()) < end:
        due(now)
        if now > next_event:
            happen()
            next_event = now + rng.expovariate(1 / a.event_every)
        if now > next_kill:
            counts["broker_kills"] += 1
            broker.kill()
            run_for(rng.uniform(0, 2))
            broker.start()
            next_kill = now + a.kill_every
        if now > next_line:
            progress()
            next_line += 10
        run_for(0.1)


def stopped(copied, seconds):
    """Reads until nothing is missing, or for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and [len(n) for n in copied.numbers] != acked:
        due(time.monotonic())
        run_for(0.3)


def finish():
    """Lets everything come to its end, and judges what is there."""
    producer.end(CATCH_UP_S)
    run_for(1)
    for worker in workers:
        if worker.resume_at:
            worker.resume_at = 0.1
    stopped(live, CATCH_UP_S)
    # More than all would be as wrong.
    run_for(2 + TIMEOUT_MS / 1000)
    ending = [threading.Thread(target=slot.worker.end, args=(90,)) for slot in slots if slot.worker]
    for thread in ending:
        thread.start()
    for thread in ending:
        thread.join()
    live.has_ended.set()
    follower.join()
    progress()
    live.judge()
    again, all_of_it = Copied("the reader of everything", "read_committed"), Copied("the other", "read_uncommitted")
    for copied in (again, all_of_it):
        deadline = time.monotonic() + CATCH_UP_S
        while len(copied.at_end) < a.partitions and time.monotonic() < deadline:
            copied.read(0.3)
    again.judge()
    counts["seen_uncommitted"] = sum(map(len, all_of_it.numbers))
    if sum(aborts.values()) and counts["seen_uncommitted"] <= sum(acked):
        wrong("aborted", "no record was ever aborted")
    found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)])[GROUP].result(30)
    offsets = {p.partition: p.offset for p in found.topic_partitions}
    if any(offsets.get(p, 0) != count for p, count in enumerate(acked)):
        wrong("offsets", f"committed {offsets}, the input ends at {acked}")
    listed = subprocess.run([a.ottla, "txn", "list", "--bootstrap", broker.address], capture_output=True, text=True)
    left = [line for line in listed.stdout.splitlines() if any(s in line for s in ("Ongoing", "Prepare"))]
    if listed.returncode != 0 or left or "id-0" not in listed.stdout:
        wrong("end", f"transactions are left: {left} {listed.stderr}")
    broker.popen.terminate()
    if broker.popen.wait(60) != 0:
        wrong("end", f"the broker ended with code {broker.popen.returncode}")


began = time.monotonic()
say(f"seed {seed}; {a.minutes:g} minutes, {a.workers} workers{' (half of them Java)' if a.java else ''}, {a.partitions} "
    f"partitions; data and logs in {work}")
broker = Broker()
COMMON = {"bootstrap.servers": broker.address, "metadata.recovery.strategy": "none", "reconnect.backoff.max.ms": 500,
          "log_level": 0}
admin = AdminClient(COMMON)
topics = [NewTopic(name, a.partitions, 1) for name in (INPUT, OUTPUT)]
for created in admin.create_topics(topics).values():
    created.result(30)
producer = Process("producer", sys.executable, HERE.parent / "soak" / "producer.py", broker.address, INPUT, a.partitions,
                   a.rate)
workers = []
slots = [Slot(number) for number in range(a.workers)]
live = Copied("the reader who was there", "read_committed")
follower = threading.Thread(target=live.follow)
follower.start()
try:
    run()
    finish()
finally:
    live.has_ended.set()
    for process in [producer, *workers]:
        process.signal(signal.SIGCONT)
        process.signal(signal.SIGKILL)
    broker.kill()
summary = {"seed": seed, "minutes": a.minutes, "seconds": round(time.monotonic() - began), "workers": a.workers,
           "java": bool(a.java), "partitions": a.partitions, "shards": a.shards, "input": sum(acked), **counts,
           "aborts": aborts, "given_up": given_up, "violations": violations}
say(json.dumps(summary))
if a.json:
    print(json.dumps(summary))
sys.exit(1 if violations else 0)
