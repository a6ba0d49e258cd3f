// The tour with @confluentinc/kafka-javascript (librdkafka) by its promises; of administration it has less than others.
// Arguments: bootstrap address, topic; as a member of a group: `member`, bootstrap address, topic, group.
const { KafkaJS, librdkafkaVersion, features } = require('@confluentinc/kafka-javascript')
const assert = require('node:assert/strict')
const tour = require('./tour.js')

const isMember = process.argv[2] === 'member'
const [bootstrap, topic, memberOf] = process.argv.slice(isMember ? 3 : 2)
const kafka = new KafkaJS.Kafka({ 'bootstrap.servers': bootstrap, log_level: 3, kafkaJS: { logLevel: KafkaJS.logLevel.NOTHING } })
const admin = kafka.admin()

async function create() {
  const wanted = {
    topics: [{ topic, numPartitions: tour.PARTITIONS, configEntries: [{ name: 'retention.ms', value: tour.RETENTION_MS }] }],
  }
  assert.equal(await admin.createTopics(wanted), true)
  assert.equal(await admin.createTopics(wanted), false) // It exists.
}

async function produce(index) {
  // Built from source it may be without zstd.
  const codec = features.includes(tour.CODECS[index]) ? tour.CODECS[index] : 'none'
  const client = kafka.producer({ 'compression.type': codec, 'enable.idempotence': index % 2 === 0 })
  await client.connect()
  const sent = await client.send({ topic, messages: tour.messages(index) })
  assert(sent.every(s => s.errorCode === 0))
  await client.disconnect()
}

// A consumer in a group that gives each message to `take`; `joined` is told what it has each time that changes.
async function inGroup(groupId, take, joined = () => {}) {
  const has = new Set()
  const client = kafka.consumer({
    'group.id': groupId, 'auto.offset.reset': 'earliest', 'enable.auto.commit': isMember, 'auto.commit.interval.ms': 200,
    'session.timeout.ms': tour.SESSION_MS, 'heartbeat.interval.ms': 500, 'check.crcs': true,
    rebalance_cb: (error, changed) => {
      const isMore = error.code === KafkaJS.ErrorCodes.ERR__ASSIGN_PARTITIONS
      for (const { partition } of changed) isMore ? has.add(partition) : has.delete(partition)
      joined(has)
    },
  })
  await client.connect()
  await client.subscribe({ topics: [topic] })
  await client.run({ eachMessage: async m => take(m.partition, m.message) })
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
    logs[partition][message.offset] = { ...message, headers: Object.assign({}, message.headers) }
    left--
  })
  await tour.until('all are read', () => left <= 0)
  await client.disconnect()
  tour.compare(logs, { isEmptyNull: true }) // It makes null of an empty value.
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
  const [described] = await admin.fetchTopicMetadata({ topics: [topic] })
  assert.equal(described.partitions.length, tour.PARTITIONS)
  assert(described.partitions.every(p => p.leader > 0))
}

async function offsets() {
  for (const row of await admin.fetchTopicOffsets(topic)) {
    assert.deepEqual([row.low, row.high], ['0', `${tour.TOTAL / tour.PARTITIONS}`])
  }
}

async function firstOfEach(groupId, done) {
  const seen = {}
  const client = await inGroup(groupId, (partition, message) => (seen[partition] ??= Number(message.offset)))
  await tour.until('each partition is read', () => Object.keys(seen).length === tour.PARTITIONS)
  await done(client)
  await client.disconnect()
  return seen
}

async function committed(groupId) {
  const partitions = Object.keys(tour.each(() => 0)).map(Number)
  const [found] = await admin.fetchOffsets({ groupId, topics: [{ topic, partitions }] })
  return Object.fromEntries(found.partitions.map(p => [p.partition, [Number(p.offset), p.metadata]]))
}

// The state of a group as a name.
async function stateOf(group) {
  const { groups } = await admin.describeGroups([group])
  const names = Object.fromEntries(Object.entries(KafkaJS.ConsumerGroupStates).map(([name, state]) => [state, name]))
  return [names[groups[0].state], groups[0].members.length]
}

async function commit() {
  const group = `${topic}-commit`
  const seen = await firstOfEach(group, async client => {
    await client.commitOffsets(Object.entries(tour.each(tour.committed)).map(([partition, offset]) => ({
      topic, partition: Number(partition), offset: `${offset}`, metadata: tour.NOTE,
    })))
    // Its promise of a commit does not wait for the answer.
    let found = {}
    for (let left = 2000; left > 0 && found[0]?.[0] !== tour.committed(0); left--) found = await committed(group)
    assert.deepEqual(found, tour.each(p => [tour.committed(p), tour.NOTE]))
    assert.deepEqual(await stateOf(group), ['STABLE', 1])
  })
  assert.deepEqual(seen, tour.each(() => 0))
  assert.deepEqual(await firstOfEach(group, async () => {}), tour.each(tour.committed))
}

async function groups() {
  const names = [`${topic}-commit`, `${topic}-group`]
  const listed = (await admin.listGroups()).groups.map(group => group.groupId)
  assert(names.every(name => listed.includes(name)))
  for (const name of names) assert.deepEqual(await stateOf(name), ['EMPTY', 0])
  // A killed member may have read what it had not committed.
  const offsets = Object.values(await committed(names[1])).map(([offset]) => offset)
  assert.equal(Math.max(...offsets), tour.TOTAL / tour.PARTITIONS)
  await admin.deleteGroups(names)
  const after = (await admin.listGroups()).groups.map(group => group.groupId)
  assert(!names.some(name => after.includes(name)))
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
  if (isMember) return member()
  const version = require('@confluentinc/kafka-javascript/package.json').version
  console.log(`client\tkafka-javascript\t${version} (librdkafka ${librdkafkaVersion})`)
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
  await tour.step('records', records)
  await tour.step('delete', remove)
  await admin.disconnect()
  tour.exit()
}

main()
