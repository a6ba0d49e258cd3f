"""Kafka Connect with its file connectors: workers are processes of their own, a file goes into a topic into a file."""

import json
import re
import signal
import threading
import time
import urllib.request

from harness import Broker, free_port, read_all, say

CATCH_UP_S = 240
TOPIC = "lines"
SETTINGS = ("group.initial.rebalance.delay.ms=500", "transaction.abort.timed.out.transaction.cleanup.interval.ms=500",
            "offsets.topic.num.partitions=8", "transaction.state.log.num.partitions=8", "log.cleaner.backoff.ms=1000")
STRINGS = "org.apache.kafka.connect.storage.StringConverter"


class Source:
    """The file that is read: its n-th line says so, whoever writes it a part at a time."""

    def __init__(self, path):
        self.file, self.lines, self.said_at = open(path, "w"), 0, time.monotonic()

    def write(self, count):
        self.file.write("".join(f"{line(n)}\n" for n in range(self.lines, self.lines + count)))
        self.file.flush()
        self.lines += count

    def progress(self, trial):
        if time.monotonic() > self.said_at + 10:
            self.said_at = time.monotonic()
            say(f"{trial.elapsed():5.0f} s  lines in {self.lines}  out {written(trial).count(chr(10))}  wrong "
                f"{len(trial.violations)}")


def line(n):
    return f"{n} {'.' * (n % 90)}"


class Worker:
    """One of Connect. A JVM that is asked to stop ends in order with 143."""

    def __init__(self, trial, broker, name, program, settings, *files):
        self.trial, self.name, self.program, self.files, self.generation = trial, name, program, files, 0
        self.port = free_port()
        settings = {"bootstrap.servers": broker.address, "key.converter": STRINGS, "value.converter": STRINGS,
                    "listeners": f"http://127.0.0.1:{self.port}", "offset.flush.interval.ms": 1000,
                    "reconnect.backoff.max.ms": 500, "plugin.discovery": "hybrid_warn", **settings}
        self.config = properties(trial.work / f"{name}.properties", settings)
        self.start()

    def start(self):
        self.generation += 1
        self.process = self.trial.process(
            f"{self.name}-{self.generation}", *self.trial.args.java.split(), "-Xmx256m",
            f"org.apache.kafka.connect.cli.{self.program}", self.config, *self.files)

    def end(self):
        self.process.end("end", 90, code_of_order=143)

    def kill(self):
        self.process.signal(signal.SIGKILL)
        self.process.popen.wait()

    def rest(self, method, path, body=None):
        """The answer of its REST interface; nothing while it cannot give one."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method,
                                         data=json.dumps(body).encode() if body else None,
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or "{}")
        except (OSError, ValueError):
            return None


def properties(path, settings):
    path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return path


def connectors(trial):
    """Settings of the two connectors."""
    return {
        "source": {"name": "source", "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",
                   "tasks.max": 1, "file": trial.work / "in.txt", "topic": TOPIC, "batch.size": 100},
        "sink": {"name": "sink", "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
                 "tasks.max": 1, "file": trial.work / "out.txt", "topics": TOPIC},
    }


def written(trial):
    """What the sink has written so far."""
    out = trial.work / "out.txt"
    return out.read_text() if out.exists() else ""


def feed(trial, source, seconds, happen=lambda: None):
    """Writes lines for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        source.write(40)
        happen()
        time.sleep(0.1)
        source.progress(trial)


def wait_for_last(trial, source):
    """The source keeps lines that it has read beyond its batch.size until there are more: each second there is one."""
    deadline, next_write = time.monotonic() + CATCH_UP_S, time.monotonic() + 1
    while not written(trial).endswith(f"{line(source.lines - 1)}\n"):
        if time.monotonic() > deadline:
            trial.wrong("lines", f"of {source.lines} lines the last one has not come; the last is {written(trial)[-30:]!r}")
            return
        if time.monotonic() > next_write:
            source.write(1)
            next_write += 1
        time.sleep(0.2)
        source.progress(trial)


def judge_topic(trial, broker, source):
    """The topic holds each line once, in order."""
    found = [m.value().decode() for m in read_all(broker, TOPIC)]
    if found != [line(n) for n in range(source.lines)]:
        numbers = [int(text.split()[0]) for text in found]
        at = next((i for i, n in enumerate(numbers) if n != i), len(numbers))
        trial.wrong("once", f"the topic has {len(found)} of {source.lines} lines; from {at} on {numbers[at:at + 5]}; "
                    f"{len(numbers) - len(set(numbers))} more than once")


def standalone(trial):
    """The worker is stopped in order while lines are written, and started again, three times; the broker is stopped and
    started while it is away. The file that comes out must be the file that went in, byte for byte, and the topic hold each
    line once, in order."""
    broker, source = Broker(trial, *SETTINGS), Source(trial.work / "in.txt")
    files = [properties(trial.work / f"{name}.properties", settings) for name, settings in connectors(trial).items()]
    worker = Worker(trial, broker, "worker", "ConnectStandalone",
                    {"offset.storage.file.filename": trial.work / "offsets"}, *files)
    for turn in range(3):
        if turn:
            worker.start()
        feed(trial, source, trial.args.seconds / 4)
        wait_for_last(trial, source)
        # Not when it has come to rest: some lines are on their way.
        source.write(500)
        worker.end()
        source.write(100)
        if turn == 0:
            broker.stop()
            broker.start()
    worker.start()
    wait_for_last(trial, source)
    worker.end()
    judge_topic(trial, broker, source)
    if written(trial) != (trial.work / "in.txt").read_text():
        trial.wrong("lines", f"out.txt is not in.txt: {written(trial).count(chr(10))} lines of {source.lines}")
    broker.stop()
    return {"records": source.lines, "restarts": 3}


def distributed(trial):
    """Two workers, whose configurations, offsets and states are in compacted topics of the broker and whose group is of the
    type `connect`. The source delivers exactly once (in transactions), the sink reads what is committed. Workers are killed
    with -9 and come back, and so is the broker. The topic must hold each line once, in order; the sink, which promises to
    leave nothing out, must have written each line, and where it began again, from a line that it had reached. At the end
    both connectors run and both are in the group."""
    broker, source, rng = Broker(trial, *SETTINGS), Source(trial.work / "in.txt"), trial.rng
    settings = {"group.id": "workers", "exactly.once.source.support": "enabled", "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 1000, "scheduled.rebalance.max.delay.ms": 1000,
                **{f"{what}.storage.topic": f"connect-{what}" for what in ("config", "offset", "status")},
                **{f"{what}.storage.replication.factor": 1 for what in ("config", "offset", "status")},
                "offset.storage.partitions": 5, "status.storage.partitions": 2}
    workers = [Worker(trial, broker, f"worker-{n}", "ConnectDistributed", settings) for n in range(2)]
    configs = connectors(trial)
    configs["source"]["exactly.once.support"] = "required"
    configs["sink"].update({"consumer.override.isolation.level": "read_committed",
                            "consumer.override.session.timeout.ms": 6000, "consumer.override.heartbeat.interval.ms": 1000})
    for name, config in configs.items():
        deadline = time.monotonic() + 120
        while not workers[0].rest("PUT", f"/connectors/{name}/config", {k: str(v) for k, v in config.items()}):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Connect takes no connector: {workers[0].process.tail()}")
            time.sleep(1)
    kills, start_at = 0, [0.0, 0.0]
    next_event, next_kill = time.monotonic() + 15, time.monotonic() + 25

    def happen():
        nonlocal kills, next_event, next_kill
        now = time.monotonic()
        for n, worker in enumerate(workers):
            if worker.process.popen.poll() is not None and start_at[n] < now:
                if worker.process.popen.returncode != -signal.SIGKILL:
                    trial.wrong("end", f"{worker.process.name} ended by itself: {worker.process.tail()}")
                worker.start()
        if now > next_event:
            n = rng.randrange(2)
            if workers[n].process.popen.poll() is None:
                workers[n].kill()
                kills, start_at[n] = kills + 1, now + rng.uniform(0, 4)
            next_event = now + 8 + rng.expovariate(1 / 8)
        if now > next_kill:
            broker.kill_for(rng.uniform(0, 2), lambda *_: None)
            next_kill = now + 25

    feed(trial, source, trial.args.seconds, happen)
    start_at = [0.0, 0.0]
    happen()
    wait_for_last(trial, source)
    deadline = time.monotonic() + 60
    while True:
        found = [workers[0].rest("GET", f"/connectors/{name}/status") or {} for name in configs]
        states = [task.get("state") for one in found for task in [one.get("connector", {}), *one.get("tasks", [])]]
        group = broker.ask("group", "describe", "workers")
        # A worker that was started last takes its time to come.
        if states == ["RUNNING"] * 4 and re.search(r"^workers: Stable, connect.* 2 members", group.stdout):
            break
        if time.monotonic() > deadline:
            trial.wrong("state", f"connectors and tasks are {states}, the group is {group.stdout}{group.stderr}")
            break
        time.sleep(0.5)
    ending = [threading.Thread(target=worker.end) for worker in workers]
    for thread in ending:
        thread.start()
    for thread in ending:
        thread.join()
    judge_topic(trial, broker, source)
    again = judge_sink(trial, source, kills)
    broker.judge_transactions("workers-source-0")
    broker.stop()
    if not kills or not broker.kills:
        trial.wrong("trial", "nothing was killed: ask for more seconds")
    return {"records": source.lines, "kills": kills, "broker kills": broker.kills, "lines written again": again}


def judge_sink(trial, source, kills):
    """Each line is there; a kill may have cut one, and made lines come again. How many came again."""
    reached, cut, again = 0, 0, 0
    for text in written(trial).split("\n")[:-1]:
        n = int(text.split()[0]) if re.fullmatch(r"\d+ \.*", text) else -1
        if n < 0 or n >= source.lines or text != line(n):
            cut += 1
            continue
        if n > reached:
            trial.wrong("lines", f"after line {reached - 1} the sink writes {n}")
        again += n < reached
        reached = max(reached, n + 1)
    if reached != source.lines or cut > kills:
        trial.wrong("lines", f"the sink has written {reached} of {source.lines} lines; {cut} are cut, {kills} kills")
    return again
