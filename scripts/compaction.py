#!/usr/bin/env python3
"""Compaction of a large topic while a producer writes to it, checked by a reader that is not ours (librdkafka).

    pip install confluent-kafka
    cargo build --release
    scripts/compaction.py [--size 10GB] [--keys 1000000] [--binary target/release/ottla]

1. A fresh broker of one shard; a compacted topic that nothing of may be compacted yet; confluent-kafka fills it with
   records of so many keys in shuffled order, some of them deletions, and remembers the last one of each key.
2. `ottla bench produce` on the same topic, with keys of its own: as fast as it goes, then at half of that.
3. Compaction is allowed, and the same load runs again for as long as it takes: each second's p99 beside those before.
4. When it is done everything is read from the start: of each key the last record must be there, deletions too, and
   what is read must have been written. Memory is the greatest that the process had.

One line of JSON with the figures; exits 1 if a key is wrong. Small sizes run in a minute: --size 200MB --keys 20000.
"""

import argparse
import array
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

TOPIC = "compaction"
NEVER_MS = str(10**15)


def size(text):
    number, unit = re.fullmatch(r"([\d.]+)\s*([kMG]?)B?", text).groups()
    return int(float(number) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[unit])


flags = argparse.ArgumentParser(description=__doc__.split("\n")[0])
flags.add_argument("--binary", default="target/release/ottla")
flags.add_argument("--size", type=size, default=size("10GB"), help="bytes of values")
flags.add_argument("--keys", type=int, default=1_000_000)
flags.add_argument("--value-bytes", type=int, default=1000)
flags.add_argument("--segment-bytes", type=int, default=None, help="default: 1 GiB, or a 20th of the size")
flags.add_argument("--seconds", type=int, default=30, help="of each load")
flags.add_argument("--connections", type=int, default=4)
flags.add_argument("--memory-per-shard", default="256MiB")
flags.add_argument("--dedupe-bytes", type=size, default=size("128MB"), help="log.cleaner.dedupe.buffer.size")
flags.add_argument("--data-dir", default=None, help="on the disk to be used; default: a temporary directory")
flags.add_argument("--server-cpu", default=None, help="pin the broker there with taskset")
flags.add_argument("--bench-cpu", default=None, help="pin the load generator there")
options = flags.parse_args()


class Broker:
    """`ottla serve`; its log is read for what compaction says."""

    def __init__(self, data_dir):
        command = [options.binary, "serve", "--data-dir", data_dir, "--listen", "127.0.0.1:0", "--shards", "1",
                   "--memory-per-shard", options.memory_per_shard, "--log-format", "json",
                   "--set", "log.cleaner.backoff.ms=1000",
                   "--set", f"log.cleaner.dedupe.buffer.size={options.dedupe_bytes}"]
        if options.server_cpu is not None:
            command = ["taskset", "-c", options.server_cpu, *command]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.compacted, self.address, self.serves = [], None, threading.Event()
        threading.Thread(target=self.read, daemon=True).start()
        if not self.serves.wait(60):
            sys.exit("the broker does not serve")

    def read(self):
        for line in self.process.stderr:
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("level") in ("ERROR", "WARN"):
                print(line, end="", file=sys.stderr)
            if entry.get("message") == "serving":
                self.address = entry["address"]
                self.serves.set()
            if entry.get("message") == "compacted":
                self.compacted.append((time.monotonic(), entry))

    def memory_peak(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def fill(address):
    """Writes the records; the number of the last one of each key, negative where that deletes it."""
    count = max(options.keys, options.size // options.value_bytes)
    last = array.array("q", [0]) * options.keys
    order, rng = list(range(options.keys)), random.Random(1)
    padding = bytes(rng.randrange(256) for _ in range(options.value_bytes))
    producer = Producer({"bootstrap.servers": address, "linger.ms": 5, "batch.size": 500_000, "enable.idempotence": True,
                         "queue.buffering.max.kbytes": 262_144, "queue.buffering.max.messages": 1_000_000})
    failed = []
    for number in range(1, count + 1):
        at = (number - 1) % options.keys
        if at == 0:
            rng.shuffle(order)
        key = order[at]
        is_deletion = rng.random() < 0.01
        value = None if is_deletion else (b"%d " % number) + padding[: options.value_bytes - 12]
        last[key] = -number if is_deletion else number
        while True:
            try:
                producer.produce(TOPIC, value, b"k%d" % key, partition=0,
                                 headers=[("n", b"%d" % number)] if is_deletion else None,
                                 on_delivery=lambda error, _: failed.append(error) if error else None)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 10_000 == 0:
            producer.poll(0)
    producer.flush()
    if failed:
        sys.exit(f"not delivered: {failed[0]}")
    return count, last


def bench(address, pid, seconds, rate=None, label="", out=None):
    command = [options.binary, "bench", "produce", "--bootstrap", address, "--topic", TOPIC, "--keys", "1000",
               "--connections", str(options.connections), "--records-per-batch", "16", "--record-bytes", "900",
               "--duration-ms", str(seconds * 1000), "--warm-up-ms", "2000", "--interval-ms", "1000",
               "--pid", str(pid), "--label", label, "--json"]
    command += ["--rate", f"{rate:.1f}", "--arrivals", "poisson"] if rate else []
    command += ["--cpu", options.bench_cpu] if options.bench_cpu is not None else []
    command += ["--out", out] if out else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("bench failed")
    return json.loads(done.stdout)


def rows_of(directory):
    """Each second's p99 in microseconds."""
    with open(os.path.join(directory, "series.csv")) as series:
        names = next(series).strip().split(",")
        rows = [dict(zip(names, line.strip().split(","))) for line in series]
    return [float(row["p99_us"]) for row in rows if float(row["seconds"]) > 0.9]


def alter(admin, name, value):
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, TOPIC, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)


def read_back(address, last):
    """Reads from the start to the end and compares; the number of records, and what is wrong."""
    client = Consumer({"bootstrap.servers": address, "group.id": "unused", "enable.auto.commit": False,
                       "enable.partition.eof": True, "check.crcs": True, "queued.max.messages.kbytes": 65_536})
    client.assign([TopicPartition(TOPIC, 0, 0)])
    found, records, others, offset = array.array("q", [0]) * options.keys, 0, 0, -1
    wrong = []
    while True:
        for message in client.consume(10_000, 10):
            if message.error():
                if message.error().code() != KafkaError._PARTITION_EOF:
                    sys.exit(str(message.error()))
                client.close()
                for key in range(options.keys):
                    if found[key] != last[key]:
                        wrong.append(f"key {key}: {found[key]} was found, {last[key]} was written last")
                return records, others, wrong
            if message.offset() <= offset:
                wrong.append(f"offset {message.offset()} follows {offset}")
            offset = message.offset()
            key, value = message.key(), message.value()
            if not re.fullmatch(rb"k\d+", key):
                others += 1
                continue
            records += 1
            key = int(key[1:])
            if value is None:
                number = -int(dict(message.headers())["n"])
            else:
                number = int(value.split(b" ", 1)[0])
                if len(value) != len(b"%d " % number) + options.value_bytes - 12:
                    wrong.append(f"a value of {len(value)} bytes at {offset}")
            if abs(number) <= abs(found[key]):
                wrong.append(f"key {key}: {number} at {offset} after {found[key]}")
            found[key] = number


def main():
    with tempfile.TemporaryDirectory(dir=options.data_dir) as scratch:
        broker = Broker(os.path.join(scratch, "data"))
        address, pid = broker.address, broker.process.pid
        admin = AdminClient({"bootstrap.servers": address})
        segment_bytes = options.segment_bytes or max(2**20, min(2**30, options.size // 20))
        topic = NewTopic(TOPIC, 1, 1, config={
            "cleanup.policy": "compact", "segment.bytes": str(segment_bytes), "min.compaction.lag.ms": NEVER_MS,
            "min.cleanable.dirty.ratio": "0.01"})
        admin.create_topics([topic])[TOPIC].result(30)
        began = time.monotonic()
        count, last = fill(address)
        filled = time.monotonic() - began
        print(f"{count} records of {options.keys} keys in {filled:.0f} s", file=sys.stderr)

        most = bench(address, pid, options.seconds, label="as fast as it goes")
        rate = most["requests_per_second"] / 2
        bench(address, pid, options.seconds, rate, "without compaction", os.path.join(scratch, "without"))
        without = rows_of(os.path.join(scratch, "without"))
        memory_without = broker.memory_peak()

        alter(admin, "min.compaction.lag.ms", "0")
        began, with_compaction = time.monotonic(), []
        while not broker.compacted:
            out = os.path.join(scratch, f"with-{len(with_compaction)}")
            started = time.monotonic()
            bench(address, pid, options.seconds, rate, "while compacting", out)
            rows = rows_of(out)
            ended = broker.compacted[0][0] if broker.compacted else float("inf")
            # Warm-up, then a row a second; those that lie within the first and largest compaction count.
            with_compaction += [row for at, row in enumerate(rows) if started + 2 + at + 1 < ended]
        first_ended, first = broker.compacted[0]
        # What the load has written meanwhile is compacted as well, until nothing is due any more.
        seen = -1
        while seen != len(broker.compacted):
            seen = len(broker.compacted)
            time.sleep(10)
        memory = broker.memory_peak()
        records, others, wrong = read_back(address, last)
        broker.stop()
        result = {
            "records": count, "keys": options.keys, "size_bytes": options.size, "fill_seconds": round(filled, 1),
            "compaction_seconds": round(first_ended - began, 1),
            "compactions": [entry for _, entry in broker.compacted],
            "records_left": records, "records_of_the_load_left": others, "wrong": len(wrong),
            "half_of_saturation_requests_per_second": round(rate, 1),
            "p99_us_without": spread(without), "p99_us_with": spread(with_compaction),
            "p99_ratio": round(statistics.median(with_compaction) / statistics.median(without), 2)
            if with_compaction else None,
            "memory_peak_without": memory_without, "memory_peak": memory,
        }
        print(json.dumps(result))
        for line in wrong[:10]:
            print(line, file=sys.stderr)
        sys.exit(1 if wrong else 0)


def spread(rows):
    """Of each second's p99: the least, the median and the greatest, and how many seconds."""
    return [min(rows), statistics.median(rows), max(rows), len(rows)] if rows else None


main()
