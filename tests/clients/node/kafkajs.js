// The tour with kafkajs, by the rules of ../python/tour.py. It cannot consume without a group, so what it
// wrote stays in the topic for another client to read (python/read_back.py); all else of the tour is here.
// Arguments: bootstrap address, topic.
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')
const assert = require('node:assert/strict')
const lz4 = require('lz4js')
const zstd = require('@bokuweb/zstd-wasm')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => ({ compress: async e => Buffer.from(lz4.compress(e.buffer)) })
CompressionCodecs[CompressionTypes.ZSTD] = () => ({ compress: async e => Buffer.from(zstd.compress(e.buffer, 3)) })

const [bootstrap, topic] = process.argv.slice(2)
const PARTITIONS = 6
const PER_CODEC = 300
const BASE_MS = 1_700_000_000_000
const RETENTION_MS = '9000000000000'
const CODECS = ['None', 'GZIP', 'Snappy', 'LZ4', 'ZSTD']
const TOTAL = CODECS.length * PER_CODEC

const key = n => (n % 7 === 0 ? null : `key-${n % 97}`)
const value = n => {
  if (n % 5 === 0 && n % 7 !== 0) return null
  return n % 11 === 0 ? '' : `value ${n} ` + 'abcdefgh'.repeat(n % 50)
}
const headers = n => Object.fromEntries([['number', `${n}`], ['nothing', '']].slice(0, n % 3))
const timestamp = n => BASE_MS + n * 1000

// Per partition the first record that is not older; kafkajs says the end where there is none.
function firstAt(at) {
  const offsets = {}
  for (let p = 0; p < PARTITIONS; p++) offsets[p] = `${TOTAL / PARTITIONS}`
  for (let n = TOTAL - 1; n >= 0; n--) if (timestamp(n) >= at) offsets[n % PARTITIONS] = `${Math.floor(n / PARTITIONS)}`
  return offsets
}

const byPartition = rows => Object.fromEntries(rows.map(row => [row.partition, row.offset]))

const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING })
const admin = kafka.admin()
let failed = false

async function step(name, run) {
  try {
    await run()
    console.log(`step\t${name}\tok`)
  } catch (error) {
    failed = true
    console.error(error)
    console.log(`step\t${name}\tfailed\t${String(error).replaceAll('\n', ' ')}`)
  }
}

async function create() {
  const wanted = {
    topics: [{ topic, numPartitions: PARTITIONS, configEntries: [{ name: 'retention.ms', value: RETENTION_MS }] }],
  }
  await admin.createTopics({ ...wanted, validateOnly: true, waitForLeaders: false })
  assert(!(await admin.listTopics()).includes(topic))
  assert.equal(await admin.createTopics(wanted), true)
  assert.equal(await admin.createTopics(wanted), false) // It exists.
}

async function produce(index) {
  const producer = kafka.producer({ idempotent: index % 2 === 0, createPartitioner: () => ({ message }) => message.partition })
  await producer.connect()
  const messages = []
  for (let n = index * PER_CODEC; n < (index + 1) * PER_CODEC; n++) {
    messages.push({
      partition: n % PARTITIONS, key: key(n), value: value(n), headers: headers(n), timestamp: `${timestamp(n)}`,
    })
  }
  const sent = await producer.send({ topic, messages, acks: -1, compression: CompressionTypes[CODECS[index]] })
  assert.deepEqual(sent.map(s => s.errorCode), Array(PARTITIONS).fill(0))
  await producer.disconnect()
}

async function seek() {
  for (const at of [timestamp(0), timestamp(451) - 1, timestamp(452), timestamp(TOTAL)]) {
    assert.deepEqual(byPartition(await admin.fetchTopicOffsetsByTimestamp(topic, at)), firstAt(at))
  }
}

async function describe() {
  const cluster = await admin.describeCluster()
  const nodes = cluster.brokers.map(b => b.nodeId)
  assert(nodes.includes(cluster.controller) && cluster.clusterId)
  const [described] = (await admin.fetchTopicMetadata({ topics: [topic] })).topics
  assert.equal(described.partitions.length, PARTITIONS)
  assert(described.partitions.every(p => nodes.includes(p.leader)))
  const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic }]
  resources.push(...nodes.map(node => ({ type: ConfigResourceTypes.BROKER, name: `${node}` })))
  for (const resource of resources) {
    const answer = (await admin.describeConfigs({ resources: [resource], includeSynonyms: true })).resources[0]
    const config = Object.fromEntries(answer.configEntries.map(e => [e.configName, e.configValue]))
    if (resource.name === topic) {
      assert.deepEqual([config['retention.ms'], config['cleanup.policy']], [RETENTION_MS, 'delete'])
    } else {
      assert('num.partitions' in config)
    }
  }
}

async function offsets() {
  for (const row of await admin.fetchTopicOffsets(topic)) {
    assert.deepEqual([row.low, row.high], ['0', `${TOTAL / PARTITIONS}`])
  }
}

// Deletes a topic of its own: the one with the records is read by another client.
async function remove() {
  const name = `${topic}-short`
  await admin.createTopics({ topics: [{ topic: name }] })
  await admin.deleteTopics({ topics: [name] })
  assert(!(await admin.listTopics()).includes(name))
}

async function main() {
  console.log(`client\tkafkajs\t${require('kafkajs/package.json').version}`)
  await zstd.init()
  await admin.connect()
  await step('create', create)
  for (const [index, codec] of CODECS.entries()) await step(`produce ${codec.toLowerCase()}`, () => produce(index))
  await step('seek', seek)
  await step('describe', describe)
  await step('offsets', offsets)
  await step('delete', remove)
  await admin.disconnect()
  process.exit(failed ? 1 : 0)
}

main()
