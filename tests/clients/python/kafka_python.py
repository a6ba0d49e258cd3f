"""The tour with kafka-python. Arguments: bootstrap address, topic."""

import sys
import time

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import TopicAlreadyExistsError

import tour

BOOTSTRAP, TOPIC = sys.argv[1:3]
TOTAL = len(tour.CODECS) * tour.PER_CODEC
PARTITIONS = [TopicPartition(TOPIC, p) for p in range(tour.PARTITIONS)]
admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)


def consumer():
    client = KafkaConsumer(
        bootstrap_servers=BOOTSTRAP, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False,
    )
    client.assign(PARTITIONS)
    return client


def create():
    topic = {TOPIC: {"num_partitions": tour.PARTITIONS, "configs": {"retention.ms": str(tour.RETENTION_MS)}}}
    admin.create_topics(topic, validate_only=True)
    tour.check(TOPIC in admin.list_topics(), False, "topic after validate_only")
    admin.create_topics(topic)
    try:
        admin.create_topics(topic)
        raise AssertionError("a second creation was accepted")
    except TopicAlreadyExistsError:
        pass


def produce(codec, numbers):
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, compression_type=None if codec == "none" else codec)
    sent = [
        producer.send(
            TOPIC, tour.value(n), tour.key(n), tour.headers(n), tour.partition(n), tour.timestamp(n),
        )
        for n in numbers
    ]
    producer.flush(30)
    for n, future in zip(numbers, sent):
        tour.check(future.get(30).offset, n // tour.PARTITIONS, "acknowledged offset")
    producer.close()


def consume():
    client = consumer()
    client.seek_to_beginning(*PARTITIONS)
    ends = client.end_offsets(PARTITIONS)
    logs = {p: [] for p in range(tour.PARTITIONS)}
    deadline = time.monotonic() + 60
    while any(client.position(p) < ends[p] for p in PARTITIONS) and time.monotonic() < deadline:
        for records in client.poll(1000).values():
            for r in records:
                logs[r.partition].append((r.offset, r.timestamp, r.key, r.value, list(r.headers)))
    tour.compare(logs, TOTAL)
    client.close()


def seek():
    client = consumer()
    for at in (0, tour.timestamp(451) - 1, tour.timestamp(452), tour.timestamp(TOTAL)):
        found = client.offsets_for_times({p: at for p in PARTITIONS})
        found = {p.partition: -1 if f is None else f.offset for p, f in found.items()}
        tour.check(found, tour.first_at(TOTAL, at), f"offsets at {at}")
    found = client.offsets_for_times({p: tour.timestamp(452) for p in PARTITIONS})
    for p, f in found.items():
        client.seek(p, f.offset)
    seen = {}
    deadline = time.monotonic() + 30
    while len(seen) < tour.PARTITIONS and time.monotonic() < deadline:
        for p, records in client.poll(1000).items():
            seen.setdefault(p, records[0].timestamp)
    tour.check(seen, {p: f.timestamp for p, f in found.items()}, "first after the seek")
    client.close()


def describe():
    cluster = admin.describe_cluster()
    nodes = {broker["broker_id"] if "broker_id" in broker else broker["node_id"] for broker in cluster["brokers"]}
    tour.check(cluster["controller_id"] in nodes, True, "controller")
    for described in (admin.describe_topics([TOPIC]), admin.describe_topic_partitions([TOPIC])["topics"]):
        partitions = described[0]["partitions"]
        tour.check(len(partitions), tour.PARTITIONS, "partitions described")
        tour.check({p["leader_id"] for p in partitions} <= nodes, True, "leaders")
    config = admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, TOPIC)], include_synonyms=True, config_filter="all",
    )["topic"][TOPIC]
    tour.check(config["retention.ms"]["value"], str(tour.RETENTION_MS), "retention.ms")
    tour.check(config["cleanup.policy"]["value"], "delete", "cleanup.policy")
    for node in nodes:
        config = admin.describe_configs(
            [ConfigResource(ConfigResourceType.BROKER, str(node))], config_filter="all",
        )["broker"][str(node)]
        tour.check("num.partitions" in config, True, f"configs of broker {node}")
    tour.check("finalized" in admin.describe_features()["metadata.version"], True, "metadata.version")


def offsets():
    logs = tour.expected(TOTAL)
    for spec, want in (
        (OffsetSpec.EARLIEST, {p: 0 for p in logs}),
        (OffsetSpec.LATEST, {p: len(log) for p, log in logs.items()}),
        (OffsetSpec.MAX_TIMESTAMP, {p: len(log) - 1 for p, log in logs.items()}),
        (OffsetSpec.EARLIEST_LOCAL, {p: 0 for p in logs}),
        (OffsetSpec.LATEST_TIERED, {p: -1 for p in logs}),
        (tour.timestamp(452), tour.first_at(TOTAL, tour.timestamp(452))),
    ):
        found = admin.list_partition_offsets({p: spec for p in PARTITIONS})
        tour.check({p.partition: f.offset for p, f in found.items()}, want, str(spec))
    client = consumer()
    tour.check(client.beginning_offsets(PARTITIONS), {p: 0 for p in PARTITIONS}, "beginning offsets")
    tour.check(client.end_offsets(PARTITIONS), {p: len(logs[p.partition]) for p in PARTITIONS}, "end offsets")
    client.close()


def delete():
    admin.delete_topics([TOPIC])
    tour.check(TOPIC in admin.list_topics(), False, "topic after its deletion")


run = tour.Tour("kafka-python", kafka.__version__)
run.step("create", create)
for index, codec in enumerate(tour.CODECS):
    run.step(f"produce {codec}", lambda: produce(codec, tour.numbers(index)))
run.step("consume", consume)
run.step("seek", seek)
run.step("describe", describe)
run.step("offsets", offsets)
run.step("delete", delete)
run.exit()
