"""The producer of the soak, with confluent-kafka. Arguments: bootstrap address, topic, partitions, records a second.

The n-th record of a partition says so; the producer is idempotent and alone, so that it must be acknowledged with offset
n, whatever happens to the broker meanwhile. Every second it tells, for each partition, how many are acknowledged:

  acked TIME P:COUNT,...
  wrong TIME TEXT

SIGTERM: it waits for what is under way and exits with 0."""

import signal
import sys
import time

from confluent_kafka import Producer

bootstrap, topic, partition_count, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
producer = Producer({
    "bootstrap.servers": bootstrap,
    "enable.idempotence": True,
    "message.timeout.ms": 300000,
    "linger.ms": 5,
    "compression.type": "lz4",
    "metadata.recovery.strategy": "none",  # tests/harness.py says why.
    "reconnect.backoff.max.ms": 1000,
})
sent = [0] * partition_count
acked = [0] * partition_count
told = [0] * partition_count
has_to_stop = False


def stop(*_):
    global has_to_stop
    has_to_stop = True


def tell(kind, *words):
    print(kind, f"{time.monotonic():.3f}", *words, flush=True)


def delivered(error, message):
    p = message.partition()
    if error is not None:
        tell("wrong", f"a record to partition {p} failed:", error)
    elif message.offset() != acked[p]:
        tell("wrong", f"record {acked[p]} of partition {p} was acknowledged with offset {message.offset()}")
    acked[p] += 1


def tell_acked():
    global told
    tell("acked", ",".join(f"{p}:{count}" for p, count in enumerate(acked) if count != told[p]))
    told = acked[:]


signal.signal(signal.SIGTERM, stop)
began = time.monotonic()
count, next_told = 0, began + 1
while not has_to_stop:
    while count < (time.monotonic() - began) * rate:
        p = count % partition_count
        try:
            producer.produce(topic, b"%d %d %s" % (p, sent[p], b"." * 80), partition=p, on_delivery=delivered)
        except BufferError:
            break
        sent[p] += 1
        count += 1
    producer.poll(0.02)
    if time.monotonic() > next_told:
        tell_acked()
        next_told += 1
left = producer.flush(120)
if left:
    tell("wrong", f"{left} records were never acknowledged")
tell_acked()
