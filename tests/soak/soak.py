#!/usr/bin/env python3
"""Consumer groups under everything that happens to them; scripts/soak.sh brings what it needs.

Members (member.py, processes of their own) of four groups read one topic that a producer (producer.py) fills at a steady
rate. At random they leave, are killed, are stopped for a moment or for longer than their session, and come back; every
minute the broker is killed with -9 and started again. The groups are an eager one, a cooperative one, one of static
members and one of the consumer protocol (KIP-848). All of it uses librdkafka and shares no code with the broker. It checks that

  records     each acknowledged record is where it was acknowledged, and was processed by each group
  order       within a partition records come by their offsets, none left out and none twice as long as a member owns it
  commits     nobody starts before an offset whose commit was acknowledged before, and at the end all is committed
  leader      no group is in PreparingRebalance, or empty with members alive, for longer than the session time-out after
              the last thing that was done to it; none is without a stable generation for longer than twice that (a
              leader may die before it has assigned anything)
  members     nobody is told UNKNOWN_MEMBER_ID without a cause: a cause is having been stopped for a session, or a broker
              that was killed while the group was not settled (what was not yet agreed upon is not kept)
  end         when all is over the groups settle, process everything and every member leaves in order

Prints the seed first and a line every ten seconds on standard error; exits 1 if something was wrong."""

import json
import os
import pathlib
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from harness import Acked, Broker, Trial, arguments, librdkafka, say

ap = arguments(__doc__)
ap.add_argument("--minutes", type=float, default=10)
ap.add_argument("--members", type=int, default=20)
ap.add_argument("--partitions", type=int, default=50)
ap.add_argument("--rate", type=float, default=500, help="records a second")
ap.add_argument("--kill-every", type=float, default=60, help="seconds between kills of the broker; 0: never")
ap.add_argument("--event-every", type=float, default=4, help="seconds between events of members, on average")
ap.add_argument("--session", type=float, default=6, help="seconds")
a = ap.parse_args()

TOPIC = "soak"
SLACK_S = 3  # Heartbeats come every second, this looks twice a second, and the machine is shared.
CATCH_UP_S = 120
trial = Trial("soak", a)
rng, wrong = trial.rng, trial.wrong
counts = dict.fromkeys(("started", "left", "killed", "stopped_short", "stopped_long", "unknown_with_cause",
                        "looks_at_groups"), 0)
errors = {}


class Slot:
    """A place in a group: empty, or with a member that runs or is stopped."""

    def __init__(self, group, number):
        self.group, self.number, self.member, self.generation = group, number, None, 0
        self.start_at, self.resume_at = 0.0, None

    def start(self):
        self.generation += 1
        instance = f"{self.group.name}-{self.number}" if self.group.is_static else ""
        self.member = trial.python(f"{self.group.name}-{self.number}-{self.generation}", "soak/member.py", broker.address,
                                   TOPIC, self.group.name, self.group.strategy, int(a.session * 1000), instance)
        self.member.slot, self.member.has, self.member.excused_until = self, set(), 0.0
        self.group.members.append(self.member)
        self.group.touch()
        counts["started"] += 1

    def empty(self):
        self.group.touch()
        self.member = None
        self.start_at = time.monotonic() + rng.uniform(1, 8)


class Group:
    def __init__(self, name, strategy, is_static, size):
        self.name, self.strategy, self.is_static = name, strategy, is_static
        self.members = []  # All that there ever were.
        self.slots = [Slot(self, number) for number in range(size)]
        self.next = [0] * a.partitions  # Up to here all is processed.
        self.later = [[] for _ in range(a.partitions)]  # Runs beyond it.
        self.read_count = 0
        self.commits = [[] for _ in range(a.partitions)]  # (time, offset) of those that raised the greatest.
        self.touched_at = 0.0
        self.state, self.state_since, self.unstable_since = None, 0.0, None
        self.was_settled_at_kill = True
        self.longest = {"without_leader": 0.0, "not_stable": 0.0}
        self.is_told = set()

    def touch(self):
        self.touched_at = time.monotonic()

    def live(self):
        return [slot for slot in self.slots if slot.member]

    def is_settled(self):
        """All members run, nothing was done to them lately, and together they have each partition once."""
        if any(slot.resume_at for slot in self.live()) or time.monotonic() - self.touched_at < 2:
            return False
        shares = [slot.member.has for slot in self.live()]
        return bool(shares) and sum(map(len, shares)) == a.partitions == len(set().union(*shares))

    def read(self, p, first, last):
        self.read_count += last - first + 1
        self.later[p].append((first, last))
        self.later[p].sort()
        while self.later[p] and self.later[p][0][0] <= self.next[p]:
            self.next[p] = max(self.next[p], self.later[p].pop(0)[1] + 1)

    def committed(self, at, p, offset):
        if not self.commits[p] or offset > self.commits[p][-1][1]:
            self.commits[p].append((at, offset))

    def started(self, member, at, p, offset):
        before = max((o for t, o in self.commits[p] if t < at), default=0)
        if offset < before:
            wrong("commits", f"{member.name} starts partition {p} at {offset}, {before} was committed before")

    def look(self, now, state):
        """Judges the state that the broker tells, `None` where it could not be asked."""
        live = [slot for slot in self.live() if not slot.resume_at]
        has_leader = state not in (ConsumerGroupState.PREPARING_REBALANCING, ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD)
        if state is None or not live:
            self.state_since, self.unstable_since = now, now
            return
        since = max(self.touched_at, broker.up_at)
        if has_leader:
            self.state_since = now
        if state == ConsumerGroupState.STABLE:
            self.unstable_since = now
        for name, began_at, limit in (
            ("without_leader", self.state_since, a.session + SLACK_S),
            ("not_stable", self.unstable_since or now, 2 * a.session + SLACK_S),
        ):
            seconds = now - max(began_at, since)
            self.longest[name] = max(self.longest[name], seconds)
            if seconds <= limit:
                self.is_told.discard(name)
            elif name not in self.is_told:
                self.is_told.add(name)
                wrong("leader", f"{self.name} is {name} for {seconds:.1f} s, in state {state.name}")


def administrator():
    return AdminClient(librdkafka(broker))


def watch_groups():
    """Asks for the groups' states twice a second; they become events."""
    while True:
        asked = {}
        if broker.is_up:
            asked = admin.describe_consumer_groups([group.name for group in groups], request_timeout=5)
        states = {}
        for name, future in asked.items():
            try:
                states[name] = future.result().state
                counts["looks_at_groups"] += 1
            except KafkaException:
                pass
        trial.events.put((None, "states", time.monotonic(), states))
        time.sleep(0.5)


starts = []  # Judged some seconds later, when the lines of all others have come.
acked = Acked(a.partitions)


def handle(process, kind, at, words):
    now = time.monotonic()
    if kind == "states":
        for group in groups:
            group.look(now, words.get(group.name))
    elif kind == "wrong":
        wrong("order" if process is not producer else "records", f"{process.name}: {words}")
    elif process is producer:
        acked.take(words)
    elif kind == "assigned":
        process.has = set(map(int, words.split(","))) if words else set()
    elif kind == "start":
        p, offset = map(int, words.split())
        starts.append((now + 5, process, at, p, offset))
    elif kind == "read":
        process.slot.group.read(*map(int, words.split()))
    elif kind == "committed":
        for pair in filter(None, words.split(",")):
            process.slot.group.committed(at, *map(int, pair.split(":")))
    elif kind == "unknown":
        unknown(process, at, words)
    elif kind == "error":
        errors[words] = errors.get(words, 0) + 1


def unknown(process, at, words):
    group = process.slot.group
    is_of_broker = not group.was_settled_at_kill and at - broker.up_at < 3 * a.session
    if at < process.excused_until or is_of_broker or not broker.is_up:
        counts["unknown_with_cause"] += 1
    else:
        wrong("members", f"{process.name} was told UNKNOWN_MEMBER_ID: {words}")


def run_for(seconds):
    """Handles events meanwhile."""
    trial.run_for(seconds, handle)
    while starts and starts[0][0] < time.monotonic():
        _, process, at, p, offset = starts.pop(0)
        process.slot.group.started(process, at, p, offset)


def happen():
    """One thing to one member."""
    slot = rng.choice([slot for group in groups for slot in group.slots])
    what = rng.choice(("leave", "kill", "short", "long"))
    if not slot.member or slot.resume_at:
        return
    member, now = slot.member, time.monotonic()
    if what == "leave":
        member.excused_until = float("inf")  # It is a member no more when the broker says so.
        slot.empty()
        counts["left"] += 1
        threading.Thread(target=member.end, args=("end", 60), daemon=True).start()
    elif what == "kill":
        slot.empty()
        counts["killed"] += 1
        member.signal(signal.SIGKILL)
    else:
        seconds = rng.uniform(0.5, a.session * 0.5) if what == "short" else rng.uniform(a.session * 1.2, a.session * 2)
        counts["stopped_" + what] += 1
        member.signal(signal.SIGSTOP)
        slot.resume_at = now + seconds
        slot.group.touch()
        if what == "long":
            member.excused_until = slot.resume_at + 2 * a.session


def due(now):
    """What was put off: members that go on or are started."""
    for group in groups:
        for slot in group.slots:
            if slot.resume_at and slot.resume_at < now:
                slot.member.signal(signal.SIGCONT)
                slot.resume_at = None
                group.touch()
            elif not slot.member and slot.start_at < now:
                slot.start()
            elif slot.member and not slot.resume_at and slot.member.popen.poll() is not None:
                wrong("end", f"{slot.member.name} ended by itself with code {slot.member.popen.returncode}")
                slot.empty()


def settle(seconds):
    """Lets the members be until the groups have settled; whether they have."""
    end = time.monotonic() + seconds
    while not all(group.is_settled() for group in groups):
        if time.monotonic() > end:
            return False
        due(time.monotonic())
        run_for(0.2)
    return True


def kill_broker():
    """Every second time the groups are left alone before, so that nobody has a reason to notice more than a pause."""
    if broker.kills % 2 == 0:
        settle(30)
    for group in groups:
        group.was_settled_at_kill = group.is_settled()
    broker.kill_for(rng.uniform(0, 2), handle)


def progress():
    lag = [acked.total() - sum(min(n, c) for n, c in zip(group.next, acked.counts)) for group in groups]
    up = [len([slot for slot in group.live() if not slot.resume_at]) for group in groups]
    say(f"{trial.elapsed():5.0f} s  acknowledged {acked.total()}  behind {lag}  members {up}  "
        f"broker kills {broker.kills}  wrong {len(trial.violations)}")


def soak():
    end = time.monotonic() + a.minutes * 60
    next_event, next_kill, next_line = time.monotonic() + 10, time.monotonic() + (a.kill_every or 1e9), time.monotonic() + 10
    while (now := time.monotonic()) < end:
        due(now)
        if now > next_event:
            happen()
            next_event = now + rng.expovariate(1 / a.event_every)
        if now > next_kill:
            kill_broker()
            next_kill = now + a.kill_every
        if now > next_line:
            progress()
            next_line += 10
        run_for(0.1)


def finish():
    """Lets everything come to its end, and judges what is left."""
    producer.end("records", CATCH_UP_S)
    for group in groups:
        for slot in group.slots:
            slot.start_at = 0.0
            if slot.resume_at:
                slot.resume_at = 0.1
    run_for(1)
    if not settle(60):
        for group in groups:
            if not group.is_settled():
                wrong("end", f"{group.name} does not settle: {[(s.member.name, len(s.member.has)) for s in group.live()]}")
    deadline = time.monotonic() + CATCH_UP_S
    while any(group.next != acked.counts for group in groups) and time.monotonic() < deadline:
        run_for(0.5)
    progress()
    for group in groups:
        for p in range(a.partitions):
            if group.next[p] != acked.counts[p]:
                wrong("records", f"{group.name} processed partition {p} to {group.next[p]}, {acked.counts[p]} were acknowledged, "
                      f"beyond are {group.later[p][:3]}")
    run_for(6)
    for group in groups:
        for slot in group.live():
            slot.member.excused_until = float("inf")
            slot.member.end("end")
    run_for(1)
    admin = administrator()
    for group in groups:
        found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group.name)])[group.name].result(30)
        offsets = {p.partition: p.offset for p in found.topic_partitions}
        missing = {p: (offsets.get(p), count) for p, count in enumerate(acked.counts) if count and offsets.get(p) != count}
        if missing:
            wrong("commits", f"{group.name} has committed and should have: {missing}")
    looks_due = 3 * (trial.elapsed())  # Half of those there could be.
    if counts["looks_at_groups"] < looks_due:
        wrong("leader", f"the groups were looked at {counts['looks_at_groups']} times instead of {looks_due:.0f}")
    broker.stop()


def summary():
    return {
        "seed": trial.seed, "minutes": a.minutes, "seconds": round(trial.elapsed()), "members": a.members,
        "partitions": a.partitions, "shards": a.shards, "records_acknowledged": acked.total(), **counts, "broker_kills": broker.kills, "errors": errors,
        "groups": {group.name: {
            "strategy": group.strategy, "static": group.is_static, "processed": sum(group.next),
            "processed_again": group.read_count - sum(group.next),
            **{f"longest_{name}_s": round(seconds, 1) for name, seconds in group.longest.items()},
        } for group in groups},
        "violations": trial.violations,
    }


say(f"seed {trial.seed}; {a.minutes:g} minutes, {a.members} members, {a.partitions} partitions; data and logs in {trial.work}")
sizes = [a.members // 4 + (number < a.members % 4) for number in range(4)]
groups = [
    Group("eager", "range", False, sizes[0]),
    Group("cooperative", "cooperative-sticky", False, sizes[1]),
    Group("static", "roundrobin", True, sizes[2]),
    Group("consumer", "uniform", False, sizes[3]),
]
session_ms = int(a.session * 1000)
sessions = [
    f"group.consumer{bound}.{key}.ms={ms}"
    for key, ms in (("session.timeout", session_ms), ("heartbeat.interval", session_ms // 6))
    for bound in ("", ".min")
]
broker = Broker(trial, "group.initial.rebalance.delay.ms=500", *sessions)
producer = None
try:
    admin = administrator()
    admin.create_topics([NewTopic(TOPIC, a.partitions, 1)])[TOPIC].result(30)
    producer = trial.python("producer", "soak/producer.py", broker.address, TOPIC, a.partitions, a.rate)
    threading.Thread(target=watch_groups, daemon=True).start()
    soak()
    finish()
finally:
    broker.kill()
    trial.tear_down()
found = summary()
if a.json:
    print(json.dumps(found, indent=1))
else:
    for name, value in found.items():
        print(f"{name}: {json.dumps(value) if isinstance(value, (dict, list)) else value}")
say(f"{len(trial.violations)} violations" + (f"; see {trial.work}" if trial.violations else ""))
sys.stdout.flush()
os._exit(1 if trial.violations else 0)  # The watching thread may sit in librdkafka.
