"""Kafka Streams: the word count and a topology that must be exact (WordCount.java, Sums.java, processes of their own)."""

import collections
import shutil
import signal
import struct
import time

from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness import Acked, Broker, Reader, librdkafka, read_all, say

CATCH_UP_S = 240
PARTITIONS = 4
SETTINGS = ("group.initial.rebalance.delay.ms=500", "transaction.abort.timed.out.transaction.cleanup.interval.ms=500",
            # Internal topics that are rolled and compacted meanwhile.
            "offsets.topic.segment.bytes=262144", "transaction.state.log.segment.bytes=262144", "log.cleaner.backoff.ms=1000",
            "offsets.topic.num.partitions=8", "transaction.state.log.num.partitions=8")


class Instance:
    """A place for an instance of a program of Streams, with a directory for its state that outlives it."""

    def __init__(self, trial, broker, name, program, *arguments):
        self.trial, self.broker, self.name, self.program, self.arguments = trial, broker, name, program, arguments
        self.state, self.generation, self.process, self.start_at = trial.work / f"state-{name}", 0, None, 0.0

    def start(self):
        self.generation += 1
        self.process = self.trial.process(
            f"{self.name}-{self.generation}", *self.trial.args.java.split(), "-Xmx256m", self.program, self.broker.address,
            self.state, *self.arguments)

    def kill(self):
        self.process.signal(signal.SIGKILL)
        self.process.popen.wait()
        self.process = None

    def remove_state(self):
        shutil.rmtree(self.state, ignore_errors=True)


def create(broker, *names):
    admin = AdminClient(librdkafka(broker))
    for created in admin.create_topics([NewTopic(name, PARTITIONS) for name in names]).values():
        created.result(30)
    return admin


def judge_offsets(trial, admin, group, topic, due):
    found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(30)
    offsets = {p.partition: p.offset for p in found.topic_partitions if p.topic == topic}
    if any(offsets.get(p, 0) != count for p, count in enumerate(due)):
        trial.wrong("offsets", f"committed {offsets}, {topic} ends at {due}")


def words(trial):
    """Lines of random words are counted twice, by the program and here. In the middle the program is closed in order and its
    state removed, and the broker stopped and started. For each word the output must rise and end at the number of times it
    was written; so must the program's changelog; the group's offsets must be the ends of the input."""
    broker = Broker(trial, *SETTINGS)
    admin = create(broker, "lines", "counted")
    producer = Producer(librdkafka(broker, enable_idempotence=True, linger_ms=5))
    vocabulary = [f"word{n}" for n in range(400)]
    weights = [1 / (n + 1) for n in range(400)]
    counts, lines = collections.Counter(), [0] * PARTITIONS
    app = Instance(trial, broker, "words", "WordCount")
    reader, seen, said = Reader(broker, "counted"), {}, [time.monotonic()]

    def handle(_process, kind, _at, text):
        if kind == "died":
            trial.wrong("thread", text)

    def write(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(50):
                line = trial.rng.choices(vocabulary, weights, k=8)
                p = trial.rng.randrange(PARTITIONS)
                producer.produce("lines", " ".join(line).title(), partition=p)
                counts.update(line)
                lines[p] += 1
            producer.poll(0)
            read()
        if producer.flush(60):
            trial.wrong("input", "records were not acknowledged")

    def read():
        trial.run_for(0.02, handle)
        for message in reader.read(0.05):
            seen[message.key().decode()] = struct.unpack(">q", message.value())[0]
        if time.monotonic() > said[0] + 10:
            said[0] = time.monotonic()
            say(f"{trial.elapsed():5.0f} s  lines {sum(lines)}  words {counts.total()}  counted {sum(seen.values())}  wrong "
                f"{len(trial.violations)}")

    def catch_up():
        deadline = time.monotonic() + CATCH_UP_S
        while seen != counts and time.monotonic() < deadline:
            read()

    app.start()
    write(trial.args.seconds / 3)
    app.process.end("end", 70)
    app.remove_state()
    broker.stop()
    broker.start()
    write(trial.args.seconds / 6)
    app.start()
    write(trial.args.seconds / 3)
    catch_up()
    app.process.end("end", 70)
    last = {}
    for message in read_all(broker, "counted"):
        key, count = message.key().decode(), struct.unpack(">q", message.value())[0]
        if count <= last.get(key, 0):
            trial.wrong("counts", f"after {last[key]} of {key} comes {count}")
        last[key] = count
    changelog = {m.key().decode(): struct.unpack(">q", m.value())[0] for m in read_all(broker, "word-count-counts-changelog")}
    for name, found in (("the output", last), ("the changelog", changelog)):
        differing = {word: (found.get(word), counts[word]) for word in {*counts, *found} if found.get(word) != counts[word]}
        if differing:
            trial.wrong("counts", f"{name} differs in {len(differing)} words, as in {dict(list(differing.items())[:3])}")
    judge_offsets(trial, admin, "word-count", "lines", lines)
    broker.stop()
    return {"records": sum(lines), "words": counts.total()}


def sums(trial):
    """Each record of the input makes one record of each output, which says how many of its key there were. So a reader of
    committed records must find, for each key, 1, 2, 3 and so on to the end, none missing and none twice, with the right sum
    at the end; one who reads while all this happens too. The last records of both changelogs must say the same. Two
    instances are killed, stopped for longer than their session and transaction may last, and some lose their state; the
    broker is killed with -9. At the end no transaction is left, the offsets are the ends of the input, and records of the
    repartition topic were deleted."""
    keys, step, window, start = 50, 20, 4000, int(time.time()) // 4 * 4000 - 600_000  # The start of a window.
    broker, rng = Broker(trial, *SETTINGS), trial.rng
    admin = create(broker, "events", "sums-out", "windows-out")
    producer = trial.python("producer", "soak/producer.py", broker.address, "events", PARTITIONS, 300)
    apps = [Instance(trial, broker, name, "Sums", keys, step, window, start) for name in "ab"]
    acked, died = Acked(PARTITIONS), collections.Counter()
    done = collections.Counter()
    reader, live = Reader(broker, "sums-out"), []

    def handle(_process, kind, _at, text):
        if kind == "wrong":
            trial.wrong("input", text)
        elif kind == "acked":
            acked.take(text)
        elif kind == "died":
            died[text.split()[0]] += 1
            say(f"{trial.elapsed():5.0f} s  a thread died: {text[:200]}")

    def due():
        for app in apps:
            if app.process and app.process.popen.poll() is not None:
                trial.wrong("end", f"{app.process.name} ended by itself: {app.process.tail()}")
                app.process, app.start_at = None, 0.0
            if app.process and app.process.resume_at and app.process.resume_at < time.monotonic():
                app.process.signal(signal.SIGCONT)
                app.process.resume_at = None
            if not app.process and app.start_at < time.monotonic():
                app.start()

    def happen():
        app = rng.choice(apps)
        if not app.process or app.process.resume_at or not app.process.has_spoken:
            return
        what = rng.choice(("kill", "kill", "lose", "stop"))
        done[what] += 1
        if what == "stop":
            app.process.signal(signal.SIGSTOP)
            app.process.resume_at = time.monotonic() + rng.uniform(1, 15)
            return
        app.kill()
        app.start_at = time.monotonic() + rng.uniform(0, 3)
        if what == "lose":
            app.remove_state()

    def turn():
        due()
        trial.run_for(0.05, handle)
        live.extend((m.key().decode(), m.value().decode()) for m in reader.read(0.05))

    def progress():
        say(f"{trial.elapsed():5.0f} s  input {acked.total()}  out {len(live)}  kills {sum(done.values())}  broker kills "
            f"{broker.kills}  threads died {died.total()}  wrong {len(trial.violations)}")

    end, next_event, next_kill, next_line = (time.monotonic() + s for s in (trial.args.seconds, 12, 20, 10))
    while (now := time.monotonic()) < end:
        turn()
        if now > next_event:
            happen()
            next_event = now + rng.expovariate(1 / 6)
        if now > next_kill:
            broker.kill_for(rng.uniform(0, 2), handle)
            next_kill = now + 20
        if now > next_line:
            progress()
            next_line = now + 10
    producer.end("input", 120)
    trial.run_for(0.5, handle)
    deadline = time.monotonic() + CATCH_UP_S
    while time.monotonic() < deadline and (len(live) < acked.total() or any(not app.process for app in apps)):
        turn()
        if time.monotonic() > next_line:
            progress()
            next_line += 10
    for app in apps:
        if app.process.resume_at:
            app.process.signal(signal.SIGCONT)
    trial.run_for(12, handle)  # More than all would be as wrong; and the last transactions of those killed come to their end.
    live.extend((m.key().decode(), m.value().decode()) for m in reader.read(1))
    for app in apps:
        app.process.end("end", 90)
    progress()
    if not done["kill"] + done["lose"] or not broker.kills:
        trial.wrong("trial", "nothing was killed: ask for more seconds")

    # The same once more, straight from what was written.
    count, total, windows = collections.Counter(), collections.Counter(), collections.Counter()
    for p, written in enumerate(acked.counts):
        for n in range(written):
            key = f"key-{(7 * p + n) % keys}"
            count[key] += 1
            total[key] += n
            windows[f"{key}@{n * step // window * window}"] += 1
    everything = [(m.key().decode(), m.value().decode()) for m in read_all(broker, "sums-out")]
    for name, records in (("the reader who was there", live), ("the reader of everything", everything)):
        judge_steps(trial, name, [(key, value.split()[0]) for key, value in records], count)
    judge_last(trial, "sums-out", dict(everything), {key: f"{count[key]} {total[key]}" for key in count})
    judge_steps(trial, "windows-out", [(m.key().decode(), m.value()) for m in read_all(broker, "windows-out")], windows)
    changelog = {m.key().decode(): m.value().decode() for m in read_all(broker, "sums-sums-changelog")}
    judge_last(trial, "the changelog of sums", changelog, {key: f"{count[key]} {total[key]}" for key in count})
    changelog = {}
    for m in read_all(broker, "sums-windows-changelog"):
        at = struct.unpack(">q", m.key()[-12:-4])[0]
        changelog[f"{m.key()[:-12].decode()}@{at - start}"] = struct.unpack(">q", m.value())[0]
    judge_last(trial, "the changelog of windows", changelog, windows)
    judge_offsets(trial, admin, "sums", "events", acked.counts)
    broker.judge_transactions("sums-")
    starts = [reader.consumer.get_watermark_offsets(TopicPartition("sums-by-key-repartition", p), 30)
              for p in range(PARTITIONS)]
    if not any(low for low, _ in starts):
        trial.wrong("repartition", f"nothing of it was deleted: {starts}")
    uncommitted = len(read_all(broker, "sums-out", "read_uncommitted"))
    broker.stop()
    return {"records": acked.total(), "kills": sum(done.values()), "broker kills": broker.kills, "threads died": died,
            "what happened": done, "aborted records": uncommitted - len(everything)}


def judge_steps(trial, name, records, due):
    """Each key must come with 1, 2, 3 and so on up to its count."""
    found = collections.Counter()
    for key, value in records:
        found[key] += 1
        if int(value) != found[key]:
            trial.wrong("once", f"{name}: record {found[key]} of {key} says {value}")
            return
    judge_last(trial, name, found, due)


def judge_last(trial, name, found, due):
    differing = {key: (found.get(key), due.get(key)) for key in {*found, *due} if found.get(key) != due.get(key)}
    if differing:
        trial.wrong("once", f"{name} differs in {len(differing)} keys of {len(due)}: {dict(list(differing.items())[:3])}")
