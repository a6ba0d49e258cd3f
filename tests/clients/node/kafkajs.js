// The tour with kafkajs. It cannot consume without a group. Arguments: bootstrap address, topic; as a member of a
// group: `member`, bootstrap address, topic, group.
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')
const assert = require('node:assert/strict')
const lz4 = require('lz4js')
const zstd = require('@bokuweb/zstd-wasm')
const tour = require('./tour.js')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async e => Buffer.from(lz4.compress(e.buffer)),
  decompress: async bytes => Buffer.from(lz4.decompress(bytes)),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async e => Buffer.from(zstd.compress(e.buffer, 3)),
  decompress: async bytes => Buffer.from(zstd.decompress(bytes)),
})
const CODECS = ['None', 'GZIP', 'Snappy', 'LZ4', 'ZSTD']

const isMember = process.argv[2] === 'member'
const [bootstrap, topic, memberOf] = process.argv.slice(isMember ? 3 : 2)
const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING })
const admin = kafka.admin()

async function create() {
  const wanted = {
    topics: [{ topic, numPartitions: tour.PARTITIONS, configEntries: [{ name: 'retention.ms', value: tour.RETENTION_MS }] }],
  }
  await admin.createTopics({ ...wanted, validateOnly: true, waitForLeaders: false })
  assert(!(await admin.listTopics()).includes(topic))
  assert.equal(await admin.createTopics(wanted), true)
  assert.equal(await admin.createTopics(wanted), false) // It exists.
}

const producer = settings => kafka.producer({ ...settings, createPartitioner: () => ({ message }) => message.partition })

async function produce(index) {
  const client = producer({ idempotent: index % 2 === 0 })
  await client.connect()
  const compression = CompressionTypes[CODECS[index]]
  const sent = await client.send({ topic, messages: tour.messages(index), acks: -1, compression })
  assert.deepEqual(sent.map(s => s.errorCode), Array(tour.PARTITIONS).fill(0))
  await client.disconnect()
}

// A consumer in a group that gives each message to `take`; `joined` is told what it has each time it has joined.
async function inGroup(groupId, take, joined = () => {}) {
  const client = kafka.consumer({
    groupId, sessionTimeout: tour.SESSION_MS, rebalanceTimeout: 30_000, heartbeatInterval: 500, maxWaitTimeInMs: 200,
  })
  client.on(client.events.GROUP_JOIN, event => joined(event.payload.memberAssignment[topic] ?? []))
  await client.connect()
  await client.subscribe({ topics: [topic], fromBeginning: true })
  await client.run({ autoCommit: isMember, autoCommitThreshold: 1, eachMessage: async m => take(m.partition, m.message) })
  return client
}

async function member() {
  const client = await inGroup(memberOf, (partition, message) => tour.read(partition, message.offset), tour.has)
  process.on('SIGTERM', () => client.disconnect().then(() => process.exit(0)))
}

async function consume() {
  const logs = tour.each(() => ({}))
  let left = tour.TOTAL
  const client = await inGroup(`${topic}-consume`, (partition, message) => {
    logs[partition][message.offset] = message
    left--
  })
  await tour.until('all are read', () => left <= 0)
  await client.disconnect()
  tour.compare(logs)
}

async function seek() {
  for (const at of [tour.timestamp(0), tour.timestamp(451) - 1, tour.timestamp(452), tour.timestamp(tour.TOTAL)]) {
    assert.deepEqual(tour.byPartition(await admin.fetchTopicOffsetsByTimestamp(topic, at)), tour.firstAt(at))
  }
  // It reads all and goes back: what comes next comes from there.
  const want = tour.firstAt(tour.timestamp(452))
  const seen = {}
  let left = tour.TOTAL
  const client = await inGroup(`${topic}-seek`, (partition, message) => {
    if (left > 0) left--
    else seen[partition] ??= message.offset
  })
  await tour.until('all are read', () => left === 0)
  for (const [partition, offset] of Object.entries(want)) client.seek({ topic, partition: Number(partition), offset })
  await tour.until('each partition is read again', () => Object.keys(seen).length === tour.PARTITIONS)
  await client.disconnect()
  assert.deepEqual(seen, want)
}

async function describe() {
  const cluster = await admin.describeCluster()
  const nodes = cluster.brokers.map(b => b.nodeId)
  assert(nodes.includes(cluster.controller) && cluster.clusterId)
  const [described] = (await admin.fetchTopicMetadata({ topics: [topic] })).topics
  assert.equal(described.partitions.length, tour.PARTITIONS)
  assert(described.partitions.every(p => nodes.includes(p.leader)))
  assert.deepEqual(await configs('retention.ms', 'cleanup.policy'), [tour.RETENTION_MS, 'delete'])
  for (const node of nodes) {
    const resource = { type: ConfigResourceTypes.BROKER, name: `${node}` }
    const answer = (await admin.describeConfigs({ resources: [resource], includeSynonyms: true })).resources[0]
    assert(answer.configEntries.some(entry => entry.configName === 'num.partitions'))
  }
}

async function configs(...names) {
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  const answer = (await admin.describeConfigs({ resources: [resource], includeSynonyms: true })).resources[0]
  return names.map(name => answer.configEntries.find(entry => entry.configName === name).configValue)
}

async function offsets() {
  for (const row of await admin.fetchTopicOffsets(topic)) {
    assert.deepEqual([row.low, row.high], ['0', `${tour.TOTAL / tour.PARTITIONS}`])
  }
}

// Offset and metadata of each partition; kafkajs makes null of an empty metadata.
async function committed(groupId) {
  const [found] = await admin.fetchOffsets({ groupId, topics: [topic] })
  return Object.fromEntries(found.partitions.map(p => [p.partition, [Number(p.offset), p.metadata]]))
}

// The first offset of each partition that a member of the group is given; `done` is called while it is a member.
async function firstOfEach(groupId, done) {
  const seen = {}
  const client = await inGroup(groupId, (partition, message) => (seen[partition] ??= Number(message.offset)))
  await tour.until('each partition is read', () => Object.keys(seen).length === tour.PARTITIONS)
  await done(client)
  await client.disconnect()
  return seen
}

async function commit() {
  const group = `${topic}-commit`
  const seen = await firstOfEach(group, async client => {
    const offsets = Object.entries(tour.each(tour.committed)).map(([partition, offset]) => ({
      topic, partition: Number(partition), offset: `${offset}`, metadata: tour.NOTE,
    }))
    await client.commitOffsets(offsets)
    assert.deepEqual(await committed(group), tour.each(p => [tour.committed(p), tour.NOTE]))
    const [described] = (await admin.describeGroups([group])).groups
    assert.deepEqual([described.state, described.members.length], ['Stable', 1])
  })
  assert.deepEqual(seen, tour.each(() => 0))
  assert.deepEqual(await firstOfEach(group, async () => {}), tour.each(tour.committed))
}

async function groups() {
  const names = [`${topic}-commit`, `${topic}-group`]
  const listed = (await admin.listGroups()).groups.map(group => group.groupId)
  assert(names.every(name => listed.includes(name)))
  for (const described of (await admin.describeGroups(names)).groups) {
    assert.deepEqual([described.errorCode, described.state, described.members], [0, 'Empty', []])
  }
  // A killed member may have read what it had not committed.
  const offsets = Object.values(await committed(names[1])).map(([offset]) => offset)
  assert.equal(Math.max(...offsets), tour.TOTAL / tour.PARTITIONS)
  await admin.setOffsets({ groupId: names[0], topic, partitions: [{ partition: 0, offset: '3' }] })
  assert.deepEqual((await committed(names[0]))[0], [3, null])
  await admin.resetOffsets({ groupId: names[0], topic, earliest: true })
  await admin.deleteGroups(names)
  const after = (await admin.listGroups()).groups.map(group => group.groupId)
  assert(!names.some(name => after.includes(name)))
}

async function alter() {
  const alter = configEntries =>
    admin.alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }] })
  const retention = { name: 'retention.ms', value: tour.RETENTION_MS }
  await alter([retention, { name: 'max.message.bytes', value: '2000000' }])
  assert.deepEqual(await configs('retention.ms', 'max.message.bytes'), [tour.RETENTION_MS, '2000000'])
  await alter([retention]) // All others are back at their defaults.
  assert.deepEqual(await configs('retention.ms', 'max.message.bytes'), [tour.RETENTION_MS, '1048588'])
}

async function partitions() {
  await admin.createPartitions({ topicPartitions: [{ topic, count: tour.PARTITIONS_MORE }] })
  const client = producer({})
  await client.connect()
  const [sent] = await client.send({ topic, messages: [{ partition: tour.PARTITIONS_MORE - 1, value: 'new' }] })
  assert.deepEqual([sent.partition, sent.baseOffset], [tour.PARTITIONS_MORE - 1, '0'])
  await client.disconnect()
}

async function records() {
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '100' }, { partition: 1, offset: '-1' }] })
  const low = Object.fromEntries((await admin.fetchTopicOffsets(topic)).map(row => [row.partition, row.low]))
  assert.deepEqual([low[0], low[1], low[2]], ['100', `${tour.TOTAL / tour.PARTITIONS}`, '0'])
}

async function remove() {
  await admin.deleteTopics({ topics: [topic] })
  assert(!(await admin.listTopics()).includes(topic))
}

async function main() {
  await zstd.init()
  if (isMember) return member()
  console.log(`client\tkafkajs\t${require('kafkajs/package.json').version}`)
  await admin.connect()
  await tour.step('create', create)
  for (const [index, codec] of tour.CODECS.entries()) await tour.step(`produce ${codec}`, () => produce(index))
  await tour.step('consume', consume)
  await tour.step('seek', seek)
  await tour.step('describe', describe)
  await tour.step('offsets', offsets)
  await tour.step('group', () => tour.groupOfThree(bootstrap, topic, `${topic}-group`))
  await tour.step('commit', commit)
  await tour.step('groups', groups)
  await tour.step('alter', alter)
  await tour.step('partitions', partitions)
  await tour.step('records', records)
  await tour.step('delete', remove)
  await admin.disconnect()
  tour.exit()
}

main()
