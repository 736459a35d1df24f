// bee-queue, with the settings of its own benchmark: no events, and nothing is left of a job that succeeded.

"use strict";

const Queue = require("bee-queue");

const settings = {
  redis: process.env.BENCH_URL,
  storeJobs: false,
  getEvents: false,
  sendEvents: false,
  removeOnSuccess: true,
};

exports.work = (queue, connect, concurrency, perform) => {
  const jobs = new Queue(queue, settings);
  jobs.process(concurrency, async ({ data }) => perform(data.job, data.value));
  jobs.checkStalledJobs(5000); // as its documentation has every worker do
};

exports.producer = async (name) => {
  const queue = await new Queue(name, { ...settings, isWorker: false }).ready();
  const create = (job, value) => queue.createJob({ job, value });
  return {
    one: (job, value) => create(job, value).save(),
    many: (job, count) => queue.saveAll(Array.from({ length: count }, () => create(job, 0))),
    remove: () => queue.destroy(),
  };
};
