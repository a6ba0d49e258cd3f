// What the clients of Node write and must read back, and how they report: the rules of ../python/tour.py, which
// explains them.
const assert = require('node:assert/strict')
const { spawn } = require('node:child_process')

const PARTITIONS = 6
const PARTITIONS_MORE = 8
const PER_CODEC = 300
const BASE_MS = 1_700_000_000_000
const RETENTION_MS = '9000000000000'
const SESSION_MS = 6000
const NOTE = 'a note \u2713'
const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd']
const TOTAL = CODECS.length * PER_CODEC

const key = n => (n % 7 === 0 ? null : `key-${n % 97}`)
const value = n => {
  if (n % 5 === 0 && n % 7 !== 0) return null
  return n % 11 === 0 ? '' : `value ${n} ` + 'abcdefgh'.repeat(n % 50)
}
const headers = n => Object.fromEntries([['number', `${n}`], ['nothing', '']].slice(0, n % 3))
const timestamp = n => BASE_MS + n * 1000
const committed = p => 10 * (p + 1)
const each = of => Object.fromEntries(Array.from({ length: PARTITIONS }, (_, p) => [p, of(p)]))
const text = bytes => (bytes == null ? null : bytes.toString())

// The messages of a codec as both clients take them.
function messages(codec) {
  const all = []
  for (let n = codec * PER_CODEC; n < (codec + 1) * PER_CODEC; n++) {
    all.push({
      partition: n % PARTITIONS, key: key(n), value: value(n), headers: headers(n), timestamp: `${timestamp(n)}`,
    })
  }
  return all
}

// Compares what a client was given, as {partition: {offset: message}}, with what was written.
function compare(logs, { isEmptyNull = false } = {}) {
  for (let n = 0; n < TOTAL; n++) {
    const message = logs[n % PARTITIONS]?.[Math.floor(n / PARTITIONS)]
    assert(message, `record ${n} is missing`)
    const got = Object.entries(message.headers ?? {}).map(([name, header]) => [name, text(header)])
    assert.deepEqual(
      [text(message.key), text(message.value), Object.fromEntries(got), Number(message.timestamp)],
      [key(n), isEmptyNull && value(n) === '' ? null : value(n), headers(n), timestamp(n)],
    )
  }
}

// Per partition the first record that is not older; the end where there is none.
function firstAt(at) {
  const offsets = each(() => `${TOTAL / PARTITIONS}`)
  for (let n = TOTAL - 1; n >= 0; n--) if (timestamp(n) >= at) offsets[n % PARTITIONS] = `${Math.floor(n / PARTITIONS)}`
  return offsets
}

const byPartition = rows => Object.fromEntries(rows.map(row => [row.partition, row.offset]))

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

// Runs group.sh with this program as the member. GROUP_SH: where it is.
function groupOfThree(...member) {
  return new Promise((resolve, reject) => {
    const process_ = spawn(process.env.GROUP_SH, [`${TOTAL}`, process.execPath, process.argv[1], 'member', ...member])
    let output = ''
    for (const stream of [process_.stdout, process_.stderr]) stream.on('data', data => (output += data))
    process_.on('close', code => (code === 0 && output === '' ? resolve() : reject(new Error(`group.sh: ${output}`))))
  })
}

// What a member of group.sh prints.
const has = partitions => console.log(`assigned\t${[...partitions].sort().join(',')}`)
const read = (partition, offset) => console.log(`read\t${partition}\t${offset}`)

// Waits until `is` is true.
async function until(what, is) {
  for (const deadline = Date.now() + 40_000; !is(); await new Promise(later => setTimeout(later, 20))) {
    assert(Date.now() < deadline, `not within 40 s: ${what}`)
  }
}

module.exports = {
  PARTITIONS, PARTITIONS_MORE, RETENTION_MS, SESSION_MS, NOTE, CODECS, TOTAL, timestamp, committed, each, messages,
  compare, firstAt, byPartition, step, groupOfThree, has, read, until, exit: () => process.exit(failed ? 1 : 0),
}
