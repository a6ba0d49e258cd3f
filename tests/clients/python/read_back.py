"""Reads what a client without assigned partitions (kafkajs) wrote and compares it, with confluent-kafka.
Arguments: bootstrap address, topic, number of records."""

import sys
import time

from confluent_kafka import Consumer, KafkaError, TopicPartition

import tour

bootstrap, topic, total = sys.argv[1], sys.argv[2], int(sys.argv[3])
# Without automatic commits: there are no groups to commit to.
client = Consumer({
    "bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False,
    "enable.partition.eof": True, "check.crcs": True,
})
client.assign([TopicPartition(topic, p, 0) for p in range(tour.PARTITIONS)])
logs, ended = {p: [] for p in range(tour.PARTITIONS)}, set()
deadline = time.monotonic() + 60
while len(ended) < tour.PARTITIONS and time.monotonic() < deadline:
    m = client.poll(1)
    if m is None:
        continue
    if m.error():
        if m.error().code() != KafkaError._PARTITION_EOF:
            sys.exit(str(m.error()))
        ended.add(m.partition())
        continue
    logs[m.partition()].append((m.offset(), m.timestamp()[1], m.key(), m.value(), m.headers() or []))
client.close()
tour.compare(logs, total)
