"""The tour with aiokafka, which cannot delete groups. Arguments: bootstrap address, topic; as a member of a group:
`member`, bootstrap address, topic, group."""

import asyncio
import sys
import time

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import CommitFailedError

import tour

BOOTSTRAP, TOPIC = sys.argv[2:4] if sys.argv[1] == "member" else sys.argv[1:3]
TOTAL = tour.TOTAL
PARTITIONS = [TopicPartition(TOPIC, p) for p in range(tour.PARTITIONS)]
TOPIC_ALREADY_EXISTS = 36


async def in_group(group, listener=None):
    client = AIOKafkaConsumer(
        bootstrap_servers=BOOTSTRAP, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=tour.SESSION_MS, heartbeat_interval_ms=500, metadata_max_age_ms=2000,
    )
    client.subscribe([TOPIC], listener=listener)
    await client.start()
    return client


class Listener(ConsumerRebalanceListener):
    def __init__(self, own):
        self.own = own

    async def on_partitions_assigned(self, all_):
        self.own.has(p.partition for p in all_)

    async def on_partitions_revoked(self, _):
        self.own.has(())


async def member(group):
    own = tour.Member()
    client = await in_group(group, Listener(own))
    is_committed = True
    while not own.leaves or not is_committed:
        for partition, records in (await client.getmany(timeout_ms=200)).items():
            for r in records:
                own.read(partition.partition, r.offset)
            is_committed = False
        try:
            if not is_committed:
                await client.commit()
                is_committed = True
        except CommitFailedError:
            pass  # The group rebalances: once more after it, or another member reads them again.
    await client.stop()


async def create(admin):
    topic = NewTopic(TOPIC, tour.PARTITIONS, 1, topic_configs={"retention.ms": str(tour.RETENTION_MS)})
    answers = []
    for validate_only in (True, False, False):
        response = await admin.create_topics([topic], validate_only=validate_only)
        answers.append(response.topic_errors[0][1])
        if validate_only:
            tour.check(TOPIC in await admin.list_topics(), False, "topic after validate_only")
    tour.check(answers, [0, 0, TOPIC_ALREADY_EXISTS], "error codes")


async def produce(codec, idempotent, numbers):
    producer = AIOKafkaProducer(
        bootstrap_servers=BOOTSTRAP, compression_type=None if codec == "none" else codec,
        enable_idempotence=idempotent,
    )
    await producer.start()
    sent = [
        await producer.send(
            TOPIC, tour.value(n), tour.key(n), tour.partition(n), tour.timestamp(n), tour.headers(n),
        )
        for n in numbers
    ]
    for n, future in zip(numbers, sent):
        tour.check((await future).offset, n // tour.PARTITIONS, "acknowledged offset")
    await producer.stop()


async def consumer():
    client = AIOKafkaConsumer(
        bootstrap_servers=BOOTSTRAP, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False,
        check_crcs=True,
    )
    await client.start()
    client.assign(PARTITIONS)
    return client


async def consume():
    client = await consumer()
    ends = await client.end_offsets(PARTITIONS)
    logs = {p: [] for p in range(tour.PARTITIONS)}
    deadline = time.monotonic() + 60
    while sum(map(len, logs.values())) < sum(ends.values()) and time.monotonic() < deadline:
        for records in (await client.getmany(timeout_ms=1000)).values():
            for r in records:
                logs[r.partition].append((r.offset, r.timestamp, r.key, r.value, list(r.headers)))
    tour.compare(logs, TOTAL)
    await client.stop()


async def seek():
    client = await consumer()
    for at in (0, tour.timestamp(451) - 1, tour.timestamp(452), tour.timestamp(TOTAL)):
        found = await client.offsets_for_times({p: at for p in PARTITIONS})
        found = {p.partition: -1 if f is None else f.offset for p, f in found.items()}
        tour.check(found, tour.first_at(TOTAL, at), f"offsets at {at}")
    found = await client.offsets_for_times({p: tour.timestamp(452) for p in PARTITIONS})
    for p, f in found.items():
        client.seek(p, f.offset)
    seen = {}
    deadline = time.monotonic() + 30
    while len(seen) < tour.PARTITIONS and time.monotonic() < deadline:
        for p, records in (await client.getmany(timeout_ms=1000)).items():
            seen.setdefault(p, records[0].timestamp)
    tour.check(seen, {p: f.timestamp for p, f in found.items()}, "first after the seek")
    await client.stop()


async def describe(admin):
    cluster = await admin.describe_cluster()
    nodes = {broker["node_id"] for broker in cluster["brokers"]}
    tour.check(cluster["controller_id"] in nodes, True, "controller")
    partitions = (await admin.describe_topics([TOPIC]))[0]["partitions"]
    tour.check(len(partitions), tour.PARTITIONS, "partitions described")
    tour.check({p["leader"] for p in partitions} <= nodes, True, "leaders")
    resources = [ConfigResource(ConfigResourceType.TOPIC, TOPIC)]
    resources += [ConfigResource(ConfigResourceType.BROKER, str(node)) for node in nodes]
    for response in await admin.describe_configs(resources, include_synonyms=True):
        for error, _, kind, name, entries in response.resources:
            config = {entry[0]: entry[1] for entry in entries}
            tour.check(error, 0, f"error of {name}")
            if kind == ConfigResourceType.TOPIC:
                tour.check(config["retention.ms"], str(tour.RETENTION_MS), "retention.ms")
                tour.check(config["cleanup.policy"], "delete", "cleanup.policy")
            else:
                tour.check("num.partitions" in config, True, f"configs of broker {name}")


async def offsets():
    logs = tour.expected(TOTAL)
    client = await consumer()
    tour.check(await client.beginning_offsets(PARTITIONS), {p: 0 for p in PARTITIONS}, "beginning offsets")
    ends = {p: len(logs[p.partition]) for p in PARTITIONS}
    tour.check(await client.end_offsets(PARTITIONS), ends, "end offsets")
    await client.stop()


async def first_of_each(client):
    seen = {}
    deadline = time.monotonic() + 30
    while len(seen) < tour.PARTITIONS and time.monotonic() < deadline:
        for p, records in (await client.getmany(timeout_ms=1000)).items():
            seen.setdefault(p.partition, records[0].offset)
    return seen


async def described(admin, group):
    """State and number of members."""
    _, name, state, _, _, members, *_ = (await admin.describe_consumer_groups([group]))[0].groups[0]
    tour.check(name, group, "the group described")
    return state, len(members)


async def commit(admin):
    group = TOPIC + "-commit"
    client = await in_group(group)
    tour.check(await first_of_each(client), {p: 0 for p in range(tour.PARTITIONS)}, "first offsets")
    await client.commit({p: (tour.committed(p.partition), tour.NOTE) for p in PARTITIONS})
    found = await admin.list_consumer_group_offsets(group)
    want = {p: (tour.committed(p.partition), tour.NOTE) for p in PARTITIONS}
    tour.check({p: (f.offset, f.metadata) for p, f in found.items()}, want, "committed")
    tour.check(await described(admin, group), ("Stable", 1), "group with a member")
    await client.stop()
    client = await in_group(group)
    tour.check(await first_of_each(client), {p: tour.committed(p) for p in range(tour.PARTITIONS)}, "offsets to go on from")
    await client.stop()


async def groups(admin):
    names = [TOPIC + "-commit", TOPIC + "-group"]
    listed = {name for name, *_ in await admin.list_consumer_groups()}
    for name in names:
        tour.check((name in listed, *await described(admin, name)), (True, "Empty", 0), f"group {name}")
    found = await admin.list_consumer_group_offsets(names[1])
    tour.check_group_of_three([f.offset for f in found.values()])


async def topic_configs(admin, *names):
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)])
    config = {entry[0]: entry[1] for entry in answers[0].resources[0][4]}
    return [config[name] for name in names]


async def alter(admin):
    retention = {"retention.ms": str(tour.RETENTION_MS)}
    for more, want in (({"max.message.bytes": "2000000"}, "2000000"), ({}, "1048588")):  # It replaces them all.
        resource = ConfigResource(ConfigResourceType.TOPIC, TOPIC, configs={**retention, **more})
        answers = await admin.alter_configs([resource])
        tour.check([error for error, *_ in answers[0].resources], [0], "error codes")
        found = await topic_configs(admin, "retention.ms", "max.message.bytes")
        tour.check(found, [str(tour.RETENTION_MS), want], "configs")


async def partitions(admin):
    await admin.create_partitions({TOPIC: NewPartitions(tour.PARTITIONS_MORE)})
    described = (await admin.describe_topics([TOPIC]))[0]["partitions"]
    tour.check(len(described), tour.PARTITIONS_MORE, "partitions described")
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP)
    await producer.start()
    sent = await producer.send_and_wait(TOPIC, b"new", partition=tour.PARTITIONS_MORE - 1)
    tour.check((sent.partition, sent.offset), (tour.PARTITIONS_MORE - 1, 0), "a record to a new partition")
    await producer.stop()


async def records(admin):
    deleted = await admin.delete_records({
        PARTITIONS[0]: RecordsToDelete(before_offset=100), PARTITIONS[1]: RecordsToDelete(before_offset=-1),
    })
    last = len(tour.expected(TOTAL)[1])
    tour.check(deleted, {PARTITIONS[0]: 100, PARTITIONS[1]: last}, "low watermarks")
    client = await consumer()
    client.assign(PARTITIONS[:1])
    client.seek(PARTITIONS[0], 0)  # Out of range: the client goes to the earliest.
    message = await asyncio.wait_for(client.getone(), 30)
    tour.check(message.offset, 100, "first record")
    await client.stop()


async def delete(admin):
    response = await admin.delete_topics([TOPIC])
    tour.check([error for _, error, *_ in response.topic_error_codes], [0], "error codes")
    tour.check(TOPIC in await admin.list_topics(), False, "topic after its deletion")


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await admin.start()
    run = tour.Tour("aiokafka", aiokafka.__version__)
    await run.step_async("create", lambda: create(admin))
    for index, codec in enumerate(tour.CODECS):
        await run.step_async(f"produce {codec}", lambda: produce(codec, index % 2 == 0, tour.numbers(index)))
    await run.step_async("consume", consume)
    await run.step_async("seek", seek)
    await run.step_async("describe", lambda: describe(admin))
    await run.step_async("offsets", offsets)
    # The loop goes on meanwhile: the administrator's connections are looked after.
    await run.step_async("group", lambda: asyncio.to_thread(tour.group_of_three, BOOTSTRAP, TOPIC, TOPIC + "-group"))
    await run.step_async("commit", lambda: commit(admin))
    await run.step_async("groups", lambda: groups(admin))
    await run.step_async("alter", lambda: alter(admin))
    await run.step_async("partitions", lambda: partitions(admin))
    await run.step_async("records", lambda: records(admin))
    await run.step_async("delete", lambda: delete(admin))
    await admin.close()
    run.exit()


asyncio.run(member(sys.argv[4]) if sys.argv[1] == "member" else main())
