"""The tour with confluent-kafka (librdkafka). Arguments: bootstrap address, topic."""

import sys
import time

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    Consumer,
    Producer,
    TopicCollection,
    TopicPartition,
    libversion,
    version,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

import tour

BOOTSTRAP, TOPIC = sys.argv[1:3]
TOTAL = len(tour.CODECS) * tour.PER_CODEC
PARTITIONS = [TopicPartition(TOPIC, p) for p in range(tour.PARTITIONS)]
admin = AdminClient({"bootstrap.servers": BOOTSTRAP})


def wait(futures):
    return {key: future.result(30) for key, future in futures.items()}


def consumer():
    # librdkafka insists on a name; with assigned partitions and no commits no group comes to be.
    return Consumer({
        "bootstrap.servers": BOOTSTRAP,
        "group.id": "unused",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "check.crcs": True,
    })


def create():
    topic = NewTopic(TOPIC, tour.PARTITIONS, config={"retention.ms": str(tour.RETENTION_MS)})
    wait(admin.create_topics([topic], validate_only=True))
    tour.check(TOPIC in admin.list_topics(timeout=10).topics, False, "topic after validate_only")
    wait(admin.create_topics([topic]))
    try:
        wait(admin.create_topics([topic]))
        raise AssertionError("a second creation was accepted")
    except KafkaException as error:
        tour.check(error.args[0].code(), KafkaError.TOPIC_ALREADY_EXISTS, "second creation")


def produce(settings, numbers):
    producer = Producer({"bootstrap.servers": BOOTSTRAP, **settings})
    errors = []
    for n in numbers:
        producer.produce(
            TOPIC, tour.value(n), tour.key(n), tour.partition(n),
            timestamp=tour.timestamp(n), headers=tour.headers(n),
            on_delivery=lambda error, _: errors.append(error) if error else None,
        )
    tour.check(producer.flush(30), 0, "records left")
    tour.check(errors, [], "delivery errors")


def read(client):
    client.assign([TopicPartition(TOPIC, p, 0) for p in range(tour.PARTITIONS)])
    logs, ended = {p: [] for p in range(tour.PARTITIONS)}, set()
    deadline = time.monotonic() + 60
    while len(ended) < tour.PARTITIONS and time.monotonic() < deadline:
        message = client.poll(1)
        if message is None:
            continue
        if message.error():
            tour.check(message.error().code(), KafkaError._PARTITION_EOF, str(message.error()))
            ended.add(message.partition())
            continue
        logs[message.partition()].append((
            message.offset(), message.timestamp()[1], message.key(), message.value(), message.headers() or [],
        ))
    return logs


def consume():
    client = consumer()
    tour.compare(read(client), TOTAL)
    client.close()


def seek():
    client = consumer()
    for at in (0, tour.timestamp(451) - 1, tour.timestamp(452), tour.timestamp(TOTAL)):
        found = client.offsets_for_times([TopicPartition(TOPIC, p, at) for p in range(tour.PARTITIONS)], 10)
        tour.check({f.partition: f.offset for f in found}, tour.first_at(TOTAL, at), f"offsets at {at}")
    at = tour.timestamp(452)
    found = client.offsets_for_times([TopicPartition(TOPIC, p, at) for p in range(tour.PARTITIONS)], 10)
    client.assign(found)
    seen = {}
    deadline = time.monotonic() + 30
    while len(seen) < tour.PARTITIONS and time.monotonic() < deadline:
        message = client.poll(1)
        if message is not None and not message.error():
            seen.setdefault(message.partition(), message.timestamp()[1])
    logs = tour.expected(TOTAL)
    tour.check(seen, {f.partition: logs[f.partition][f.offset][1] for f in found}, "first after the seek")
    client.close()


def describe():
    cluster = admin.describe_cluster().result(10)
    tour.check(bool(cluster.cluster_id) and cluster.controller is not None, True, "cluster")
    topics = wait(admin.describe_topics(TopicCollection([TOPIC])))[TOPIC]
    tour.check(len(topics.partitions), tour.PARTITIONS, "partitions described")
    tour.check({p.leader.id for p in topics.partitions} <= {n.id for n in cluster.nodes}, True, "leaders")
    resource = ConfigResource(ConfigResource.Type.TOPIC, TOPIC)
    config = wait(admin.describe_configs([resource]))[resource]
    tour.check(config["retention.ms"].value, str(tour.RETENTION_MS), "retention.ms")
    tour.check(config["retention.ms"].is_default, False, "retention.ms is a default")
    tour.check(config["cleanup.policy"].value, "delete", "cleanup.policy")
    for node in cluster.nodes:
        resource = ConfigResource(ConfigResource.Type.BROKER, str(node.id))
        config = wait(admin.describe_configs([resource]))[resource]
        tour.check("num.partitions" in config, True, f"configs of broker {node.id}")


def offsets():
    logs = tour.expected(TOTAL)
    for spec, want in (
        (OffsetSpec.earliest(), {p: 0 for p in logs}),
        (OffsetSpec.latest(), {p: len(log) for p, log in logs.items()}),
        (OffsetSpec.max_timestamp(), {p: len(log) - 1 for p, log in logs.items()}),
        (OffsetSpec.for_timestamp(tour.timestamp(452)), tour.first_at(TOTAL, tour.timestamp(452))),
    ):
        for level in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED):
            found = wait(admin.list_offsets({p: spec for p in PARTITIONS}, isolation_level=level))
            tour.check({p.partition: r.offset for p, r in found.items()}, want, f"{type(spec).__name__}")
    client = consumer()
    for p, log in logs.items():
        tour.check(client.get_watermark_offsets(TopicPartition(TOPIC, p), 10), (0, len(log)), "watermarks")
    client.close()


def delete():
    wait(admin.delete_topics([TOPIC]))
    tour.check(TOPIC in admin.list_topics(timeout=10).topics, False, "topic after its deletion")


run = tour.Tour("confluent-kafka", f"{version()} (librdkafka {libversion()[0]})")
run.step("create", create)
for index, codec in enumerate(tour.CODECS):
    settings = {"compression.type": codec, "enable.idempotence": index % 2 == 0}
    run.step(f"produce {codec}", lambda: produce(settings, tour.numbers(index)))
run.step("consume", consume)
run.step("seek", seek)
run.step("describe", describe)
run.step("offsets", offsets)
run.step("delete", delete)
run.exit()
