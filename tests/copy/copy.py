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

import json
import pathlib
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient, NewTopic
from harness import HERE, Acked, Broker, Reader, Trial, arguments, librdkafka, say

ap = arguments(__doc__)
ap.add_argument("--minutes", type=float, default=10)
ap.add_argument("--workers", type=int, default=4)
ap.add_argument("--java", help="the command of Worker.java: every second worker is one")
ap.add_argument("--only-java", action="store_true", help="every worker is one of Java")
ap.add_argument("--partitions", type=int, default=6)
ap.add_argument("--rate", type=float, default=500, help="records a second")
ap.add_argument("--kill-every", type=float, default=30, help="seconds between kills of the broker; 0: never")
ap.add_argument("--event-every", type=float, default=4, help="seconds between events of workers, on average")
a = ap.parse_args()

INPUT, OUTPUT, GROUP = "input", "output", "copy"
TIMEOUT_MS = 8000  # Of transactions. Sessions are of 6 s.
CATCH_UP_S = 180
SETTINGS = (
    "group.initial.rebalance.delay.ms=300", "transaction.abort.timed.out.transaction.cleanup.interval.ms=500",
    # Segments that are rolled and compacted meanwhile.
    "log.segment.bytes=4194304", "offsets.topic.segment.bytes=262144", "transaction.state.log.segment.bytes=262144",
    "log.cleaner.backoff.ms=1000")
trial = Trial("copy", a)
rng, wrong = trial.rng, trial.wrong
counts = dict.fromkeys(("started", "killed", "stopped", "replaced", "transactions", "copied"), 0)
aborts, given_up = {}, {}


class Slot:
    """A transactional id, and the worker that has it or should."""

    def __init__(self, number):
        self.number, self.generation, self.worker, self.start_at = number, 0, None, 0.0

    def start(self):
        self.generation += 1
        is_java = a.java and (self.number % 2 or a.only_java)
        program = a.java.split() if is_java else (sys.executable, HERE / "copy" / "worker.py")
        self.worker = trial.process(f"worker-{self.number}-{self.generation}", *program, broker.address, GROUP, INPUT, OUTPUT,
                                    f"id-{self.number}", TIMEOUT_MS, rng.randrange(2**31))
        workers.append(self.worker)
        counts["started"] += 1


class Copied:
    """What a reader has found of the output: for each partition the numbers of the input's records, in order."""

    def __init__(self, name, isolation):
        self.name, self.numbers, self.has_ended = name, [[] for _ in range(a.partitions)], threading.Event()
        self.reader = Reader(broker, OUTPUT, isolation)

    def take(self, messages):
        for message in messages:
            _, p, n = message.value().split()[:3]
            if int(p) != message.partition():
                wrong("once", f"{self.name}: a record of partition {p} is in {message.partition()}")
            self.numbers[message.partition()].append(int(n))

    def follow(self):
        while not self.has_ended.is_set():
            self.take(self.reader.read(0.3))

    def judge(self):
        """Each once, in order."""
        for p, numbers in enumerate(self.numbers):
            if numbers == list(range(acked.counts[p])):
                continue
            at = next((i for i, n in enumerate(numbers) if n != i), len(numbers))
            wrong("once", f"{self.name}: partition {p} has {len(numbers)} of {acked.counts[p]}; from {at} on: {numbers[at:at + 5]}; "
                  f"{len(numbers) - len(set(numbers))} more than once, {len(set(range(acked.counts[p])) - set(numbers))} missing")


acked = Acked(a.partitions)


def handle(process, kind, _, text):
    words = text.split()
    if kind == "wrong":
        wrong("input", f"{process.name}: {text}")
    elif kind == "acked":
        acked.take(text)
    elif kind == "committed":
        counts["transactions"] += 1
        counts["copied"] += int(words[0])
    elif kind == "aborted":
        aborts[words[1]] = aborts.get(words[1], 0) + 1
    elif kind == "gave_up":
        given_up[words[0]] = given_up.get(words[0], 0) + 1


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
                wrong("end", f"{slot.worker.name} ended by itself with code {slot.worker.popen.returncode}: {slot.worker.tail()}")
            slot.worker, slot.start_at = None, now + rng.uniform(0, 1)
        if not slot.worker and slot.start_at < now:
            slot.start()


def progress():
    say(f"{trial.elapsed():5.0f} s  input {acked.total()}  read {sum(map(len, live.numbers))}  transactions "
        f"{counts['transactions']}  aborted {sum(aborts.values())}  given up {sum(given_up.values())}  killed "
        f"{counts['killed']}  broker kills {broker.kills}  wrong {len(trial.violations)}")


def run():
    now = time.monotonic()
    end, next_event, next_kill, next_line = now + a.minutes * 60, now + 5, now + (a.kill_every or 1e9), now + 10
    while (now := time.monotonic()) < end:
        due(now)
        if now > next_event:
            happen()
            next_event = now + rng.expovariate(1 / a.event_every)
        if now > next_kill:
            broker.kill_for(rng.uniform(0, 2), handle)
            next_kill = now + a.kill_every
        if now > next_line:
            progress()
            next_line += 10
        trial.run_for(0.1, handle)


def stopped(copied, seconds):
    """Reads until nothing is missing, or for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and [len(n) for n in copied.numbers] != acked.counts:
        due(time.monotonic())
        trial.run_for(0.3, handle)


def finish():
    """Lets everything come to its end, and judges what is there."""
    producer.end("end", CATCH_UP_S)
    trial.run_for(1, handle)
    for worker in workers:
        if worker.resume_at:
            worker.resume_at = 0.1
    stopped(live, CATCH_UP_S)
    # More than all would be as wrong.
    trial.run_for(2 + TIMEOUT_MS / 1000, handle)
    ending = [threading.Thread(target=slot.worker.end, args=("end", 90)) for slot in slots if slot.worker]
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
        copied.take(copied.reader.read_all(CATCH_UP_S))
    again.judge()
    counts["seen_uncommitted"] = sum(map(len, all_of_it.numbers))
    if sum(aborts.values()) and counts["seen_uncommitted"] <= acked.total():
        wrong("aborted", "no record was ever aborted")
    found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)])[GROUP].result(30)
    offsets = {p.partition: p.offset for p in found.topic_partitions}
    if any(offsets.get(p, 0) != count for p, count in enumerate(acked.counts)):
        wrong("offsets", f"committed {offsets}, the input ends at {acked.counts}")
    broker.judge_transactions("id-0")
    broker.stop()


of_java = "" if not a.java else " (all of Java)" if a.only_java else " (half of them of Java)"
say(f"seed {trial.seed}; {a.minutes:g} minutes, {a.workers} workers{of_java}, {a.partitions} partitions; data and logs in "
    f"{trial.work}")
broker = Broker(trial, *SETTINGS)
admin = AdminClient(librdkafka(broker))
topics = [NewTopic(name, a.partitions, 1) for name in (INPUT, OUTPUT)]
for created in admin.create_topics(topics).values():
    created.result(30)
producer = trial.python("producer", "soak/producer.py", broker.address, INPUT, a.partitions, a.rate)
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
    broker.kill()
    trial.tear_down()
summary = {"seed": trial.seed, "minutes": a.minutes, "seconds": round(trial.elapsed()), "workers": a.workers,
           "java": bool(a.java), "partitions": a.partitions, "shards": a.shards, "input": acked.total(), **counts, "broker_kills": broker.kills,
           "aborts": aborts, "given_up": given_up, "violations": trial.violations}
say(json.dumps(summary))
if a.json:
    print(json.dumps(summary))
sys.exit(1 if trial.violations else 0)
