"""One worker of the transactional copy, with confluent-kafka: the first protocol of transactions. Arguments: bootstrap
address, group, input, output, transactional id, transaction time-out in ms, seed.

It takes records of the input, writes each with its worker's name into the same partition of the output, and commits the
offsets in the same transaction. Now and then it aborts by its own will and begins again where the group's offsets are.
What may be asked for again is; what makes the transaction one to abort is aborted; with anything else it gives up, as a
program would that its supervisor starts again. It tells, a line each:

  ready TIME                 it has its transactional id
  committed TIME COUNT       records of a transaction
  aborted TIME COUNT NAME    why: `will`, `moved` (partitions were taken away), or the error
  gave_up TIME NAME          it exits with 3

SIGTERM: it ends its transaction, leaves the group and exits with 0."""

import random
import signal
import sys
import time

has_to_stop = False


def stop(*_):
    global has_to_stop
    has_to_stop = True


signal.signal(signal.SIGTERM, stop)  # First of all: the import below takes its time.

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

bootstrap, group, source, sink, transactional_id, timeout_ms, seed = sys.argv[1:8]
rng = random.Random(seed)
WAIT_S = 30
common = {
    "bootstrap.servers": bootstrap,
    "metadata.recovery.strategy": "none",  # tests/harness.py says why.
    "reconnect.backoff.max.ms": 500,
    "topic.metadata.refresh.interval.ms": 10000,
    "log_level": 0,
}
has_moved = False


def tell(kind, *words):
    print(kind, f"{time.monotonic():.3f}", *words, flush=True)


def moved(*_):
    global has_moved
    has_moved = True


def retried(ask):
    """Asks until the answer is not "later"; a transaction that can only be aborted is the caller's."""
    until = time.monotonic() + 3 * WAIT_S
    while True:
        try:
            return ask()
        except KafkaException as failed:
            if not failed.args[0].retriable() or failed.args[0].txn_requires_abort() or time.monotonic() > until:
                raise
            time.sleep(0.05)


def rewind():
    """Goes on where the group's offsets are."""
    assigned = consumer.assignment()
    for place in retried(lambda: consumer.committed(assigned, WAIT_S)) if assigned else []:
        consumer.seek(TopicPartition(place.topic, place.partition, max(place.offset, 0)))


def copy(messages):
    """One transaction; the reason why it is to be aborted, if there is one."""
    offsets = {}
    producer.begin_transaction()
    for message in messages:
        value = transactional_id.encode() + b" " + message.value()
        producer.produce(sink, value, partition=message.partition())
        offsets[message.partition()] = message.offset() + 1
    offsets = [TopicPartition(source, p, offset) for p, offset in offsets.items()]
    retried(lambda: producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), WAIT_S))
    if rng.random() < 0.1:
        producer.flush(WAIT_S)
        return "will"
    retried(lambda: producer.commit_transaction(WAIT_S))
    return None


def work():
    global has_moved
    messages = [message for message in consumer.consume(rng.randrange(1, 200), 0.2) if not message.error()]
    if has_moved:
        # What came before may belong to somebody else by now.
        has_moved = False
        if messages:
            tell("aborted", len(messages), "moved")
        return rewind()
    if not messages:
        return
    try:
        reason = copy(messages)
    except KafkaException as failed:
        if not failed.args[0].txn_requires_abort():
            raise
        reason = failed.args[0].name()
    if reason is None:
        return tell("committed", len(messages))
    retried(lambda: producer.abort_transaction(WAIT_S))
    tell("aborted", len(messages), reason)
    rewind()


producer = Producer({
    **common,
    "transactional.id": transactional_id,
    "transaction.timeout.ms": int(timeout_ms),
    "linger.ms": 2,
})
consumer = Consumer({
    **common,
    "group.id": group,
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "session.timeout.ms": 6000,
    "heartbeat.interval.ms": 1000,
})
try:
    retried(lambda: producer.init_transactions(WAIT_S))
    tell("ready")
    consumer.subscribe([source], on_assign=moved, on_revoke=moved, on_lost=moved)
    while not has_to_stop:
        work()
    consumer.close()
except KafkaException as failed:
    tell("gave_up", failed.args[0].name())
    sys.exit(3)
