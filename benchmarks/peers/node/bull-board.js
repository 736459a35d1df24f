// bull-board on queues of ended jobs: `bull-board.js <socket> <database> <jobs> <queue>...` prints its port.

"use strict";

const express = require("express");
const Redis = require("ioredis");
const { createBullBoard } = require("@bull-board/api");
const { BullMQAdapter } = require("@bull-board/api/bullMQAdapter");
const { ExpressAdapter } = require("@bull-board/express");
const { Queue, Worker } = require("bullmq");

const AT_ONCE = 1000;
const [socket, database, count, ...names] = process.argv.slice(2);
const connect = () => new Redis({ path: socket, db: Number(database), maxRetriesPerRequest: null });

const fill = async (queue, jobs) => {
  for (let first = 0; first < jobs; first += AT_ONCE) {
    const some = Array.from({ length: Math.min(AT_ONCE, jobs - first) }, (_, n) => ({
      name: "report",
      data: { month: "2026-11", number: first + n },
    }));
    await queue.addBulk(some);
  }
  let left = jobs;
  await new Promise((resolve) => {
    const perform = async (job) => {
      if (job.data.number % 100 === 0) throw new Error("no such month");
    };
    const worker = new Worker(queue.name, perform, { connection: connect(), concurrency: 200 });
    const ended = () => --left || resolve(worker.close());
    worker.on("completed", ended);
    worker.on("failed", ended);
  });
};

(async () => {
  const queues = names.map((name) => new Queue(name, { connection: connect() }));
  for (const queue of queues) await fill(queue, Math.floor(Number(count) / queues.length));
  const server = new ExpressAdapter();
  server.setBasePath("/ui");
  createBullBoard({ queues: queues.map((queue) => new BullMQAdapter(queue)), serverAdapter: server });
  const app = express();
  app.use("/ui", server.getRouter());
  const listening = app.listen(0, "127.0.0.1", () => console.log(listening.address().port));
})();
