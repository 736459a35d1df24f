// BullMQ: `node bench.js work CONCURRENCY`, or `node bench.js produce VERB JOB COUNT` as in produce.py.

"use strict";

const fs = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");
const { Queue, Worker } = require("bullmq");
const Redis = require("ioredis");

const MARKS = 40;
const NAP_MILLISECONDS = 10;
const NAME = "bench";
const marks = process.env.BENCH_MARKS;

const seconds = () => (performance.timeOrigin + performance.now()) / 1000;
const connect = () => new Redis(process.env.BENCH_URL, { maxRetriesPerRequest: null });

function work(concurrency) {
  const client = connect();
  const file = fs.openSync(marks, "a");
  const mark = (value) => {
    const now = seconds();
    fs.writeSync(file, `${process.pid} ${value} ${now}\n`);
    return 1;
  };
  const bodies = {
    noop: () => 1,
    mark: (data) => mark(data.value),
    incr: async () => {
      await client.incr("bench:count");
      return 1;
    },
    nap: async () => {
      await sleep(NAP_MILLISECONDS);
      return mark(0);
    },
  };
  new Worker(NAME, async (job) => bodies[job.name](job.data), { connection: connect(), concurrency });
}

async function produce(verb, job, count) {
  const queue = new Queue(NAME, { connection: connect() });
  await queue.waitUntilReady();
  const bulk = async (jobs) => {
    const data = { value: 0 };
    for (let left = jobs; left > 0; left -= 500) {
      await queue.addBulk(Array.from({ length: Math.min(left, 500) }, () => ({ name: job, data })));
    }
  };
  const verbs = {
    bulk: () => bulk(count),
    fill: async () => {
      for (let position = 0; position < MARKS; position++) {
        await bulk(Math.floor(count / MARKS) - 1);
        await queue.add("mark", { value: position });
      }
    },
    each: async () => {
      for (let done = 0; done < count; done++) await queue.add(job, { value: 0 });
    },
    paced: async () => {
      for (let done = 0; done < count; done++) {
        await sleep(5 + 15 * Math.random());
        const size = fs.statSync(marks).size;
        await queue.add(job, { value: seconds() });
        while (fs.statSync(marks).size === size) await sleep(1);
      }
    },
  };
  const started = performance.now();
  await verbs[verb]();
  console.log((performance.now() - started) / 1000);
  process.exit(0);
}

const [role, ...words] = process.argv.slice(2);
if (role === "work") work(Number(words[0]));
else produce(words[0], words[1], Number(words[2]));
