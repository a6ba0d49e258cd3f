"""One member of a group in the soak, with confluent-kafka. Arguments: bootstrap address, topic, group, assignment
strategy (`uniform`: the consumer protocol, with that assignor of the broker), session time-out in ms, group.instance.id
or "".

It reads, checks that each record is the one that belongs at its offset and that no offset is left out while it owns the
partition, commits what it has read, and tells what it saw, a line each, with the time (monotonic, of the machine):

  assigned TIME P,P,...        all that it has now, whenever it changes
  start TIME P OFFSET          the first record of a partition that it was given at TIME
  read TIME P FIRST LAST       records that follow each other
  committed TIME P:OFFSET,...  acknowledged
  unknown TIME TEXT            it was told UNKNOWN_MEMBER_ID
  error TIME NAME              another error, which may be right
  wrong TIME TEXT              what must not be

SIGTERM: it commits, leaves the group and exits with 0."""

import logging
import signal
import sys
import time

has_to_leave = False


def leave(*_):
    global has_to_leave
    has_to_leave = True


signal.signal(signal.SIGTERM, leave)  # First of all: the import below takes its time.

from confluent_kafka import Consumer, KafkaError, KafkaException

bootstrap, topic, group, strategy, session_ms, instance = sys.argv[1:7]


def tell(kind, *words, at=None):
    print(kind, f"{at or time.monotonic():.3f}", *words, flush=True)


class Watch(logging.Handler):
    """librdkafka handles UNKNOWN_MEMBER_ID by itself and says so in its debug log only."""

    def emit(self, record):
        text = record.getMessage()
        if "Unknown member" in text or "UNKNOWN_MEMBER_ID" in text:
            tell("unknown", text.replace("\n", " "))


log = logging.getLogger("librdkafka")
log.setLevel(logging.DEBUG)
log.propagate = False
log.addHandler(Watch())

def on_error(error):
    # One that leaves may still be there when the next one of its name has come.
    if error.fatal() and not has_to_leave:
        tell("wrong", "fatal:", error.str())


settings = {
    "bootstrap.servers": bootstrap,
    "group.id": group,
    "max.poll.interval.ms": 60000,
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "check.crcs": True,
    "fetch.wait.max.ms": 500,
    "metadata.recovery.strategy": "none",  # tests/harness.py says why.
    "reconnect.backoff.max.ms": 1000,
    "topic.metadata.refresh.interval.ms": 10000,
    "debug": "cgrp",
    "error_cb": on_error,
}
if strategy == "uniform":  # Its time-outs are the broker's.
    settings |= {"group.protocol": "consumer", "group.remote.assignor": strategy}
else:
    settings |= {
        "partition.assignment.strategy": strategy,
        "session.timeout.ms": int(session_ms),
        "heartbeat.interval.ms": int(session_ms) // 6,
    }
if instance:
    settings["group.instance.id"] = instance
consumer = Consumer(settings, logger=log)
given = {}  # Partition -> when it was given.
due = {}  # Partition -> the offset that comes next, once one came.


def tell_assigned():
    tell("assigned", ",".join(map(str, sorted(given))))


def assigned(_, partitions):
    for p in partitions:
        given[p.partition] = time.monotonic()
        due.pop(p.partition, None)
    tell_assigned()


def revoked(_, partitions):
    for p in partitions:
        given.pop(p.partition, None)
        due.pop(p.partition, None)
    tell_assigned()


def take(messages):
    """Checks the messages and gives the runs of offsets of each partition."""
    runs = {}
    for message in messages:
        if message.error():
            if message.error().fatal():
                tell("wrong", "fatal:", message.error())
            tell("error", message.error().name())
            continue
        p, offset = message.partition(), message.offset()
        if p not in given:
            continue  # Taken away while this batch was gathered: whoever has it reads it again.
        if message.value().split()[:2] != [b"%d" % p, b"%d" % offset]:
            tell("wrong", f"at offset {offset} of partition {p} is {message.value()[:40]}")
        if p not in due:
            tell("start", p, offset, at=given[p])
        elif due[p] != offset:
            tell("wrong", f"after offset {due[p] - 1} of partition {p} comes {offset}")
        due[p] = offset + 1
        runs.setdefault(p, [offset, offset])[1] = offset
    for p, (first, last) in runs.items():
        tell("read", p, first, last)
    return bool(runs)


def commit():
    """True when there is nothing left to commit."""
    try:
        done = consumer.commit(asynchronous=False)
        tell("committed", ",".join(f"{c.partition}:{c.offset}" for c in done if c.error is None and c.offset >= 0))
        return True
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.UNKNOWN_MEMBER_ID:
            tell("unknown", "commit")
        elif code != KafkaError._NO_OFFSET:
            tell("error", error.args[0].name())
        return code == KafkaError._NO_OFFSET


consumer.subscribe([topic], on_assign=assigned, on_revoke=revoked, on_lost=revoked)
is_committed = True
while not has_to_leave:
    if take(consumer.consume(500, 0.3)):
        is_committed = False
    if not is_committed:
        is_committed = commit()
for _ in range(20):
    if is_committed:
        break
    take(consumer.consume(500, 0.1))  # A rebalance that is under way goes on.
    is_committed = commit()
consumer.close()
