// sharp's part of benchmarks/image.py: one run for each line on standard input, answered with its figures.
//
//     node benchmarks/image.mjs <folder of node_modules> <three|cascade> <folder of source.jpg and out/>

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [modules, way, folder] = process.argv.slice(2);
const sharp = createRequire(`${modules}/x.js`)("sharp");
const widths = [1600, 800, 200];
const status = (name) => +readFileSync("/proc/self/status", "utf8").match(`${name}:\\s+(\\d+)`)[1] / 1024;

async function three() {
  for (const width of widths) {
    await sharp(`${folder}/source.jpg`).rotate().resize(width).jpeg({ quality: 80 }).toFile(`${folder}/out/${width}.jpg`);
  }
}

async function cascade() {
  let image = sharp(`${folder}/source.jpg`).rotate();
  for (const width of widths) {
    const { data, info } = await image.resize(width).raw().toBuffer({ resolveWithObject: true });
    image = sharp(data, { raw: { width: info.width, height: info.height, channels: info.channels } });
    await image.clone().jpeg({ quality: 80 }).toFile(`${folder}/out/${width}.jpg`);
  }
}

const imported = status("VmRSS");
for await (const line of createInterface({ input: process.stdin })) {
  const before = process.cpuUsage();
  const began = performance.now();
  await (way === "three" ? three : cascade)();
  const { user, system } = process.cpuUsage(before);
  const figures = { cpu: (user + system) / 1000, wall: performance.now() - began, rss: status("VmHWM") - imported };
  console.log(JSON.stringify(figures));
}
