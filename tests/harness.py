"""What the trials with programs of other people share (tests/soak, tests/copy, tests/ecosystem): the broker, processes whose
lines become events, what was found wrong, and where data and logs are. It knows no program and nothing of the broker
but its command line."""

import argparse
import pathlib
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

HERE = pathlib.Path(__file__).resolve().parent


def arguments(doc, **defaults):
    """A parser with the flags that all trials have."""
    ap = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ottla", required=True, type=pathlib.Path, help="the binary")
    ap.add_argument("--seed", type=int, default=None)
    ap.add_argument("--shards", type=int, default=2)
    ap.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a config of the broker")
    ap.add_argument("--dir", type=pathlib.Path, help="where data and logs go and stay; else a temporary directory")
    ap.add_argument("--json", action="store_true", help="the summary as JSON on standard output")
    ap.set_defaults(**defaults)
    return ap


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Trial:
    """One run: its seed, its directory, its events, and what was wrong."""

    def __init__(self, name, a, directory=None):
        self.name, self.args, self.began = name, a, time.monotonic()
        self.seed = a.seed if a.seed is not None else random.SystemRandom().randrange(2**32)
        self.rng = random.Random(self.seed)
        self.work = directory or a.dir or pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.work.mkdir(parents=True, exist_ok=True)
        self.events, self.violations, self.processes = queue.Queue(), [], []

    def elapsed(self):
        return time.monotonic() - self.began

    def wrong(self, what, text):
        self.violations.append({"at_s": round(self.elapsed(), 1), "what": what, "text": text})
        say(f"WRONG {what}: {text}")

    def process(self, name, *command):
        started = Process(self, name, *command)
        self.processes.append(started)
        return started

    def python(self, name, program, *arguments):
        return self.process(name, sys.executable, HERE / program, *arguments)

    def run_for(self, seconds, handle):
        """Handles events meanwhile: `handle(process, kind, time, text)`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                handle(*self.events.get(timeout=left))
            except queue.Empty:
                break

    def tear_down(self):
        """Ends what still runs; the directory stays if it was asked for, something was wrong or this failed itself."""
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGKILL)
        if not self.args.dir and not self.violations and not sys.exc_info()[0]:
            shutil.rmtree(self.work, ignore_errors=True)


class Process:
    """A program whose lines `KIND TIME TEXT` become events (process, kind, time, text)."""

    def __init__(self, trial, name, *command):
        self.trial, self.name, self.has_spoken, self.resume_at = trial, name, False, None
        with open(trial.work / f"{name}.err", "ab") as stderr:
            self.popen = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=stderr, text=True)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.popen.stdout:
            self.has_spoken = True
            words = line.split(None, 2)
            if line.endswith("\n") and len(words) >= 2:  # The last line of a killed one may be cut.
                try:
                    self.trial.events.put((self, words[0], float(words[1]), words[2].strip() if len(words) > 2 else ""))
                except ValueError:
                    pass  # Not one of ours.

    def signal(self, number):
        if self.popen.poll() is None:
            self.popen.send_signal(number)

    def tail(self):
        return (self.trial.work / f"{self.name}.err").read_text(errors="replace")[-500:]

    def end(self, what, wait_s=30, code_of_order=0):
        """Asks it to stop and expects that it does so in order."""
        self.signal(signal.SIGTERM)
        try:
            code = self.popen.wait(wait_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            code = f"none within {wait_s} s"
        # One that has not spoken may not have been a program yet that can stop in order.
        if code != code_of_order and not (code in (-signal.SIGTERM, 128 + signal.SIGTERM) and not self.has_spoken):
            self.trial.wrong(what, f"{self.name} ended with code {code}: {self.tail()}")


class Broker:
    """The broker under trial, on ports that it keeps."""

    def __init__(self, trial, *settings):
        self.trial, self.settings = trial, [*settings, *trial.args.set]
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.is_up, self.kills = False, 0
        self.start()

    def start(self):
        a = self.trial.args
        with open(self.trial.work / "broker.log", "ab") as log:
            self.popen = subprocess.Popen(
                [a.ottla, "serve", "--data-dir", self.trial.work / "data", "--listen", self.address, "--shards",
                 str(a.shards), *(word for pair in self.settings for word in ("--set", pair))], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                for shard in range(a.shards):
                    socket.create_connection(("127.0.0.1", self.port + shard), 1).close()
                break
            except OSError:
                if self.popen.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the broker does not start: see {self.trial.work / 'broker.log'}")
                time.sleep(0.05)
        self.up_at, self.is_up = time.monotonic(), True

    def kill(self):
        self.is_up = False
        self.popen.kill()
        self.popen.wait()

    def kill_for(self, seconds, handle):
        """Kills it with -9 and starts it again after so long."""
        self.kills += 1
        self.kill()
        self.trial.run_for(seconds, handle)
        self.start()

    def stop(self, wait_s=60):
        """Asks it to stop and expects that it does so in order."""
        self.is_up = False
        self.popen.terminate()
        try:
            code = self.popen.wait(wait_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            code = f"none within {wait_s} s"
        if code != 0:
            self.trial.wrong("end", f"the broker ended with code {code}")

    def ask(self, *words):
        """A subcommand of the binary about this broker."""
        return subprocess.run([self.trial.args.ottla, *words, "--bootstrap", self.address], capture_output=True, text=True)

    def judge_transactions(self, known):
        """None is left under way, and the transactional id is known that must be."""
        listed = self.ask("txn", "list")
        left = [line for line in listed.stdout.splitlines() if any(s in line for s in ("Ongoing", "Prepare"))]
        if listed.returncode != 0 or left or known not in listed.stdout:
            self.trial.wrong("end", f"transactions are left, or {known} is unknown: {left} {listed.stderr}")


# librdkafka 2.16 without `none` forgets its brokers when all are down at once, and may not find them again.
LIBRDKAFKA = {"metadata.recovery.strategy": "none", "reconnect.backoff.max.ms": 500, "log_level": 0}


def librdkafka(broker, **settings):
    """Settings of a client in the trial's own process."""
    return {"bootstrap.servers": broker.address, **LIBRDKAFKA, **{k.replace("_", "."): v for k, v in settings.items()}}


class Reader:
    """A consumer of a whole topic, with its end in view."""

    def __init__(self, broker, topic, isolation="read_committed"):
        self.consumer = Consumer(librdkafka(broker, group_id=f"reader of {topic}", isolation_level=isolation,
                                            enable_auto_commit=False, enable_partition_eof=True, check_crcs=True))
        found = self.consumer.list_topics(topic, 30).topics[topic].partitions
        self.partitions, self.at_end = len(found), set()
        self.consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in found])

    def read(self, timeout_s):
        """Records that came within this time."""
        records = []
        for message in self.consumer.consume(1000, timeout_s):
            if message.error():
                # An error but the end of the partition is tried again by librdkafka.
                if message.error().code() == KafkaError._PARTITION_EOF:
                    self.at_end.add(message.partition())
                continue
            self.at_end.discard(message.partition())
            records.append(message)
        return records

    def read_all(self, wait_s=120):
        """Records up to the end."""
        records, deadline = [], time.monotonic() + wait_s
        while len(self.at_end) < self.partitions:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the end was not reached within {wait_s} s")
            records += self.read(0.3)
        return records

    def close(self):
        self.consumer.close()


def read_all(broker, topic, isolation="read_committed"):
    reader = Reader(broker, topic, isolation)
    try:
        return reader.read_all()
    finally:
        reader.close()


class Acked:
    """What tests/soak/producer.py was acknowledged, from its lines: records of each partition."""

    def __init__(self, partitions):
        self.counts = [0] * partitions

    def take(self, text):
        for pair in filter(None, text.split(",")):
            p, count = map(int, pair.split(":"))
            self.counts[p] = count

    def total(self):
        return sum(self.counts)
