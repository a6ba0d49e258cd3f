"""The tour with aiokafka. Arguments: bootstrap address, topic."""

import asyncio
import sys
import time

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

import tour

BOOTSTRAP, TOPIC = sys.argv[1:3]
TOTAL = len(tour.CODECS) * tour.PER_CODEC
PARTITIONS = [TopicPartition(TOPIC, p) for p in range(tour.PARTITIONS)]
TOPIC_ALREADY_EXISTS = 36


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
    await run.step_async("delete", lambda: delete(admin))
    await admin.close()
    run.exit()


asyncio.run(main())
