"""The tour with kafka-python. Arguments: bootstrap address, topic; as a member of a group: `member`, bootstrap address,
topic, group."""

import sys
import time

import kafka
from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import CommitFailedError, RebalanceInProgressError, TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

import tour

BOOTSTRAP, TOPIC = sys.argv[2:4] if sys.argv[1] == "member" else sys.argv[1:3]
TOTAL = tour.TOTAL
PARTITIONS = [TopicPartition(TOPIC, p) for p in range(tour.PARTITIONS)]


def consumer():
    client = KafkaConsumer(
        bootstrap_servers=BOOTSTRAP, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False,
    )
    client.assign(PARTITIONS)
    return client


def in_group(group, listener=None):
    client = KafkaConsumer(
        bootstrap_servers=BOOTSTRAP, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=tour.SESSION_MS, heartbeat_interval_ms=500,
    )
    client.subscribe([TOPIC], listener=listener)
    return client


class Listener(ConsumerRebalanceListener):
    def __init__(self, own):
        self.own = own

    def on_partitions_assigned(self, more):
        self.own.has(self.own.assigned | {p.partition for p in more})

    def on_partitions_revoked(self, less):
        self.own.has(self.own.assigned - {p.partition for p in less})


def member(group):
    own = tour.Member()
    client = in_group(group, Listener(own))
    is_committed = True
    while not own.leaves or not is_committed:
        for partition, records in client.poll(200).items():
            for r in records:
                own.read(partition.partition, r.offset)
            is_committed = False
        try:
            if not is_committed:
                client.commit()
                is_committed = True
        except (CommitFailedError, RebalanceInProgressError):
            pass  # Once more after it, or another member reads them again.
    client.close()


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


def first_of_each(client):
    seen = {}
    deadline = time.monotonic() + 30
    while len(seen) < tour.PARTITIONS and time.monotonic() < deadline:
        for p, records in client.poll(1000).items():
            seen.setdefault(p.partition, records[0].offset)
    return seen


def commit():
    group = TOPIC + "-commit"
    client = in_group(group)
    tour.check(first_of_each(client), {p: 0 for p in range(tour.PARTITIONS)}, "first offsets")
    client.commit({p: OffsetAndMetadata(tour.committed(p.partition), tour.NOTE, -1) for p in PARTITIONS})
    want = {p: (tour.committed(p.partition), tour.NOTE) for p in PARTITIONS}
    found = {p: client.committed(p, metadata=True) for p in PARTITIONS}
    tour.check({p: (f.offset, f.metadata) for p, f in found.items()}, want, "committed")
    described = admin.describe_groups([group])[group]
    tour.check((described["group_state"], len(described["members"])), ("Stable", 1), "group with a member")
    client.close()
    client = in_group(group)
    tour.check(first_of_each(client), {p: tour.committed(p) for p in range(tour.PARTITIONS)}, "offsets to go on from")
    client.close()


def committed(group):
    return {p.partition: o.offset for p, o in admin.list_group_offsets([group])[group].items()}


def groups():
    names = [TOPIC + "-commit", TOPIC + "-group"]
    listed = {group["group_id"]: group for group in admin.list_groups()}
    for name, described in admin.describe_groups(names).items():
        tour.check((name in listed, described["group_state"], described["members"]), (True, "Empty", []), f"group {name}")
    tour.check_group_of_three(committed(names[1]).values())
    admin.alter_group_offsets(names[0], {PARTITIONS[0]: OffsetAndMetadata(3, "", -1)})
    admin.delete_group_offsets(names[0], [PARTITIONS[1]])
    want = {p: tour.committed(p) if p else 3 for p in range(tour.PARTITIONS) if p != 1}
    tour.check(committed(names[0]), want, "moved offsets")
    admin.delete_groups(names)
    listed = {group["group_id"] for group in admin.list_groups()}
    tour.check(listed & set(names), set(), "groups after their deletion")


def topic_configs(*names):
    resource = ConfigResource(ConfigResourceType.TOPIC, TOPIC)
    config = admin.describe_configs([resource], config_filter="all")["topic"][TOPIC]
    return [config[name]["value"] for name in names]


def alter():
    resource = ConfigResource(ConfigResourceType.TOPIC, TOPIC, {
        "max.message.bytes": ("SET", "2000000"), "cleanup.policy": ("APPEND", "compact"),
    })
    admin.alter_configs([resource])
    names = ("retention.ms", "max.message.bytes", "cleanup.policy")
    tour.check(topic_configs(*names), [str(tour.RETENTION_MS), "2000000", "delete,compact"], "configs")
    resource = ConfigResource(ConfigResourceType.TOPIC, TOPIC, {
        "max.message.bytes": ("DELETE", None), "cleanup.policy": ("SUBTRACT", "compact"),
    })
    admin.alter_configs([resource])
    tour.check(topic_configs(*names), [str(tour.RETENTION_MS), "1048588", "delete"], "configs")
    # The older way replaces them all; the client adds what was set before.
    resource = ConfigResource(ConfigResourceType.TOPIC, TOPIC, {"max.message.bytes": "3000000"})
    admin.alter_configs([resource], incremental=False)
    tour.check(topic_configs(*names), [str(tour.RETENTION_MS), "3000000", "delete"], "configs")


def partitions():
    admin.create_partitions({TOPIC: tour.PARTITIONS_MORE})
    described = admin.describe_topics([TOPIC])[0]
    tour.check(len(described["partitions"]), tour.PARTITIONS_MORE, "partitions described")
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
    sent = producer.send(TOPIC, b"new", partition=tour.PARTITIONS_MORE - 1).get(30)
    tour.check((sent.partition, sent.offset), (tour.PARTITIONS_MORE - 1, 0), "a record to a new partition")
    producer.close()


def records():
    last = len(tour.expected(TOTAL)[1])
    admin.delete_records({PARTITIONS[0]: 100, PARTITIONS[1]: -1})
    client = consumer()
    first = client.beginning_offsets(PARTITIONS[:3])
    tour.check({p.partition: offset for p, offset in first.items()}, {0: 100, 1: last, 2: 0}, "first offsets")
    client.assign(PARTITIONS[:1])
    client.seek(PARTITIONS[0], 0)  # Out of range: the client goes to the earliest.
    polled = {}
    deadline = time.monotonic() + 30
    while not polled and time.monotonic() < deadline:
        polled = client.poll(1000)
    tour.check(polled[PARTITIONS[0]][0].offset, 100, "first record")
    client.close()


def delete():
    admin.delete_topics([TOPIC])
    tour.check(TOPIC in admin.list_topics(), False, "topic after its deletion")


if sys.argv[1] == "member":
    member(sys.argv[4])
    sys.exit()
admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
run = tour.Tour("kafka-python", kafka.__version__)
run.step("create", create)
for index, codec in enumerate(tour.CODECS):
    run.step(f"produce {codec}", lambda: produce(codec, tour.numbers(index)))
run.step("consume", consume)
run.step("seek", seek)
run.step("describe", describe)
run.step("offsets", offsets)
run.step("group", lambda: tour.group_of_three(BOOTSTRAP, TOPIC, TOPIC + "-group"))
run.step("commit", commit)
run.step("groups", groups)
run.step("alter", alter)
run.step("partitions", partitions)
run.step("records", records)
run.step("delete", delete)
run.exit()
