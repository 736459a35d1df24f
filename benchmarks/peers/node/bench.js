// The Node systems: `node bench.js SYSTEM work CONCURRENCY`, or `node bench.js SYSTEM produce VERB JOB COUNT` as
// in produce.py. A system's module offers `work`, and `producer` with `one`, `many` and `remove`.

"use strict";

const fs = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");
const Redis = require("ioredis");

const MARKS = 40;
const NAP_MILLISECONDS = 10;
const QUEUE = "bench";
const AT_ONCE = 500;
const WARM_UP = 3_000; // jobs enqueued elsewhere before the clock starts, so that the code is compiled
const marks = process.env.BENCH_MARKS;

const seconds = () => (performance.timeOrigin + performance.now()) / 1000;
const connect = () => new Redis(process.env.BENCH_URL, { maxRetriesPerRequest: null });

function work(system, concurrency) {
  const client = connect();
  const file = fs.openSync(marks, "a");
  const mark = (value) => {
    const now = seconds();
    fs.writeSync(file, `${process.pid} ${value} ${now}\n`);
    return 1;
  };
  const bodies = {
    noop: () => 1,
    mark,
    incr: async () => {
      await client.incr("bench:count");
      return 1;
    },
    nap: async () => {
      await sleep(NAP_MILLISECONDS);
      return mark(0);
    },
  };
  system.work(QUEUE, connect, concurrency, (job, value) => bodies[job](value));
}

async function bulk(producer, job, count) {
  for (let left = count; left > 0; left -= AT_ONCE) await producer.many(job, Math.min(left, AT_ONCE));
}

async function each(producer, job, count) {
  for (let done = 0; done < count; done++) await producer.one(job, 0);
}

async function fill(producer, job, count) {
  for (let position = 0; position < MARKS; position++) {
    await bulk(producer, job, Math.floor(count / MARKS) - 1);
    await producer.one("mark", position);
  }
}

async function paced(producer, job, count) {
  for (let done = 0; done < count; done++) {
    await sleep(5 + 15 * Math.random());
    const size = fs.statSync(marks).size;
    await producer.one(job, seconds());
    while (fs.statSync(marks).size === size) await sleep(1);
  }
}

async function produce(system, verb, job, count) {
  const elsewhere = await system.producer("warm-up", connect);
  await bulk(elsewhere, job, WARM_UP);
  await each(elsewhere, job, WARM_UP);
  await elsewhere.remove();
  const producer = await system.producer(QUEUE, connect);
  const started = performance.now();
  await { bulk, each, fill, paced }[verb](producer, job, count);
  console.log((performance.now() - started) / 1000);
  process.exit(0);
}

const [name, role, ...words] = process.argv.slice(2);
const system = require(`./${name}.js`);
if (role === "work") work(system, Number(words[0]));
else produce(system, words[0], words[1], Number(words[2]));
