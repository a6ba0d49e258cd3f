"""The tour with confluent-kafka (librdkafka). Arguments: bootstrap address, topic; as a member of a group: `member`,
bootstrap address, topic, group, strategy."""

import sys
import time
import warnings

from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
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
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

import tour

BOOTSTRAP, TOPIC = sys.argv[2:4] if sys.argv[1] == "member" else sys.argv[1:3]
TOTAL = tour.TOTAL
PARTITIONS = [TopicPartition(TOPIC, p) for p in range(tour.PARTITIONS)]


def wait(futures):
    return {key: future.result(30) for key, future in futures.items()}


def consumer(**settings):
    # librdkafka insists on a name; with assigned partitions and no commits no group comes to be.
    return Consumer({
        "bootstrap.servers": BOOTSTRAP,
        "group.id": "unused",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "check.crcs": True,
        **settings,
    })


def in_group(group, strategy="range,roundrobin"):
    settings = {"group.id": group, "enable.partition.eof": False, "topic.metadata.refresh.interval.ms": 2000}
    if strategy in ("uniform", "range"):  # Of the broker, whose timeouts hold, too.
        return consumer(**settings, **{"group.protocol": "consumer", "group.remote.assignor": strategy})
    return consumer(**settings, **{
        "partition.assignment.strategy": strategy, "session.timeout.ms": tour.SESSION_MS, "heartbeat.interval.ms": 500,
    })


def member(group, strategy):
    client, own = in_group(group, strategy), tour.Member()
    # With cooperative members, and in the consumer protocol, a callback gets only what changes.
    client.subscribe(
        [TOPIC],
        on_assign=lambda _, more: own.has(own.assigned | {p.partition for p in more}),
        on_revoke=lambda _, less: own.has(own.assigned - {p.partition for p in less}),
    )
    is_committed = True
    while not own.leaves or not is_committed:
        for message in client.consume(100, 0.2):
            if not message.error():
                own.read(message.partition(), message.offset())
                is_committed = False
        try:
            is_committed = is_committed or client.commit(asynchronous=False) is not None
        except KafkaException:
            pass  # The group rebalances: once more after it, or another member reads them again.
    client.close()


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


def commit():
    group = TOPIC + "-commit"
    client = in_group(group)
    client.subscribe([TOPIC])
    tour.check(first_of_each(client), {p: 0 for p in range(tour.PARTITIONS)}, "first offsets")
    client.commit(offsets=[
        TopicPartition(TOPIC, p, tour.committed(p), tour.NOTE) for p in range(tour.PARTITIONS)
    ], asynchronous=False)
    found = {p.partition: (p.offset, p.metadata) for p in client.committed(PARTITIONS, 10)}
    tour.check(found, {p: (tour.committed(p), tour.NOTE) for p in range(tour.PARTITIONS)}, "committed")
    described = wait(admin.describe_consumer_groups([group]))[group]
    tour.check((described.state, len(described.members)), (ConsumerGroupState.STABLE, 1), "group with a member")
    tour.check(len(described.members[0].assignment.topic_partitions), tour.PARTITIONS, "partitions of the member")
    client.close()
    client = in_group(group)
    client.subscribe([TOPIC])
    tour.check(first_of_each(client), {p: tour.committed(p) for p in range(tour.PARTITIONS)}, "offsets to go on from")
    client.close()


def first_of_each(client):
    seen = {}
    deadline = time.monotonic() + 30
    while len(seen) < tour.PARTITIONS and time.monotonic() < deadline:
        message = client.poll(1)
        if message is not None and not message.error():
            seen.setdefault(message.partition(), message.offset())
    return seen


def group_ids():
    listed = admin.list_consumer_groups().result(10)
    tour.check(listed.errors, [], "errors of the list")
    return {group.group_id for group in listed.valid}


def groups():
    names = [TOPIC + "-commit", TOPIC + "-eager", TOPIC + "-cooperative", TOPIC + "-consumer"]
    tour.check(set(names) <= group_ids(), True, "groups listed")
    for name, described in wait(admin.describe_consumer_groups(names)).items():
        tour.check((described.state, described.members), (ConsumerGroupState.EMPTY, []), f"group {name}")
    for name in names[1:]:
        found = wait(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)]))[name].topic_partitions
        tour.check_group_of_three([p.offset for p in found])
    moved = ConsumerGroupTopicPartitions(names[0], [TopicPartition(TOPIC, 0, 3)])
    wait(admin.alter_consumer_group_offsets([moved]))
    found = wait(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(names[0])]))[names[0]]
    want = {p: tour.committed(p) if p else 3 for p in range(tour.PARTITIONS)}
    tour.check({p.partition: p.offset for p in found.topic_partitions}, want, "moved offsets")
    wait(admin.delete_consumer_groups(names))
    tour.check(set(names) & group_ids(), set(), "groups after their deletion")


def alter():
    resource = ConfigResource(ConfigResource.Type.TOPIC, TOPIC, incremental_configs=[
        ConfigEntry("max.message.bytes", "2000000", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND),
    ])
    wait(admin.incremental_alter_configs([resource]))
    config = wait(admin.describe_configs([resource]))[resource]
    values = [config[name].value for name in ("retention.ms", "max.message.bytes", "cleanup.policy")]
    tour.check(values, [str(tour.RETENTION_MS), "2000000", "delete,compact"], "configs")
    # The older way replaces them all.
    warnings.simplefilter("ignore", DeprecationWarning)
    resource = ConfigResource(ConfigResource.Type.TOPIC, TOPIC, {"retention.ms": str(tour.RETENTION_MS)})
    wait(admin.alter_configs([resource]))
    config = wait(admin.describe_configs([resource]))[resource]
    tour.check((config["max.message.bytes"].is_default, config["cleanup.policy"].value), (True, "delete"), "configs")


def partitions():
    wait(admin.create_partitions([NewPartitions(TOPIC, tour.PARTITIONS_MORE)]))
    described = wait(admin.describe_topics(TopicCollection([TOPIC])))[TOPIC]
    tour.check(len(described.partitions), tour.PARTITIONS_MORE, "partitions described")
    acknowledged = []
    producer = Producer({"bootstrap.servers": BOOTSTRAP})
    producer.produce(
        TOPIC, b"new", partition=tour.PARTITIONS_MORE - 1,
        on_delivery=lambda error, m: acknowledged.append((error, m.partition(), m.offset())),
    )
    producer.flush(30)
    tour.check(acknowledged, [(None, tour.PARTITIONS_MORE - 1, 0)], "a record to a new partition")


def records():
    deleted = wait(admin.delete_records([TopicPartition(TOPIC, 0, 100), TopicPartition(TOPIC, 1, -1)]))
    last = len(tour.expected(TOTAL)[1])
    tour.check({p.partition: d.low_watermark for p, d in deleted.items()}, {0: 100, 1: last}, "low watermarks")
    client = consumer()
    tour.check(client.get_watermark_offsets(TopicPartition(TOPIC, 0), 10)[0], 100, "first offset")
    client.assign([TopicPartition(TOPIC, 0, 0)])  # Out of range: the client goes to the earliest.
    tour.check(client.consume(1, 30)[0].offset(), 100, "first record")
    client.close()


def delete():
    wait(admin.delete_topics([TOPIC]))
    tour.check(TOPIC in admin.list_topics(timeout=10).topics, False, "topic after its deletion")


if sys.argv[1] == "member":
    member(*sys.argv[4:])
    sys.exit()
admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
run = tour.Tour("confluent-kafka", f"{version()} (librdkafka {libversion()[0]})")
run.step("create", create)
for index, codec in enumerate(tour.CODECS):
    settings = {"compression.type": codec, "enable.idempotence": index % 2 == 0}
    run.step(f"produce {codec}", lambda: produce(settings, tour.numbers(index)))
run.step("consume", consume)
run.step("seek", seek)
run.step("describe", describe)
run.step("offsets", offsets)
for kind, strategy in (("eager", "range,roundrobin"), ("cooperative", "cooperative-sticky"), ("consumer", "uniform")):
    run.step(f"group {kind}", lambda: tour.group_of_three(BOOTSTRAP, TOPIC, f"{TOPIC}-{kind}", strategy))
run.step("commit", commit)
run.step("groups", groups)
run.step("alter", alter)
run.step("partitions", partitions)
run.step("records", records)
run.step("delete", delete)
run.exit()
