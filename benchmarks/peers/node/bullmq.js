// BullMQ, with its results and events.

"use strict";

const { Queue, Worker } = require("bullmq");

exports.work = (queue, connect, concurrency, perform) => {
  new Worker(queue, (job) => perform(job.name, job.data.value), { connection: connect(), concurrency });
};

exports.producer = async (name, connect) => {
  const queue = new Queue(name, { connection: connect() });
  await queue.waitUntilReady();
  return {
    one: (job, value) => queue.add(job, { value }),
    many: (job, count) => queue.addBulk(Array.from({ length: count }, () => ({ name: job, data: { value: 0 } }))),
    remove: () => queue.obliterate({ force: true }),
  };
};
