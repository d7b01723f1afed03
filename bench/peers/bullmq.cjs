// BullMQ for Node, driven with the sub-commands that bench/README.md describes.
'use strict';
const { Queue, Worker } = require('bullmq');

const [command, address, ...rest] = process.argv.slice(2);
const url = new URL(address);
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };
const now = () => Number(process.hrtime.bigint()) / 1e9; // the machine's monotonic clock, as in Python
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const say = (value) => console.log(JSON.stringify(value));
const FILLER = 'x'.repeat(140);
const payload = (number, at = 0) => ({ number, at, user: 'someone@example.test', filler: FILLER });
const jobs = (from, count) => Array.from({ length: count }, (_, i) => ({ name: 'noop', data: payload(from + i) }));

const cpu = () => { const used = process.cpuUsage(); return used.user + used.system; };
const untilStdinEnds = () => new Promise((done) => { process.stdin.resume(); process.stdin.on('end', done); });

async function fill(count) {
  const queue = new Queue('bench', { connection });
  for (let from = 0; from < count; from += 1000) await queue.addBulk(jobs(from, Math.min(1000, count - from)));
  await queue.close();
}

async function drain(concurrency, count, keep, workSeconds) {
  let done = 0, first, usedBefore;
  const finished = new Promise((resolve) => {
    const handler = async () => {
      if (done === 0 && first === undefined) { first = now(); usedBefore = cpu(); }
      if (workSeconds > 0) await pause(workSeconds);
      if (++done === count) resolve({ seconds: now() - first, cpu_us: (cpu() - usedBefore) / count });
    };
    const worker = new Worker('bench', handler, { connection, concurrency, removeOnComplete: { count: keep } });
    worker.on('error', () => {});
  });
  say(await finished);
  await untilStdinEnds();
}

async function addFor(queue, seconds, inFlight) {
  const start = now();
  let added = 0;
  const loop = async () => { while (now() < start + seconds) { await queue.add('noop', payload(added)); added++; } };
  await Promise.all(Array.from({ length: inFlight }, loop));
  return added / (now() - start);
}

async function enqueue(seconds) {
  const queue = new Queue('bench', { connection });
  await queue.waitUntilReady();
  await addFor(queue, 0.3, 50);
  const serial = await addFor(queue, seconds, 1);
  const inFlight = await addFor(queue, seconds, 50);
  const start = now();
  for (let from = 0; from < 10000; from += 1000) await queue.addBulk(jobs(from, 1000));
  say({ serial, in_flight: inFlight, bulk: 10000 / (now() - start) });
  await queue.close();
}

async function listen(concurrency, count) {
  const latencies = [];
  const worker = new Worker('bench', async (job) => {
    const at = now();
    if (job.data.at) latencies.push((at - job.data.at) * 1000);
    if (latencies.length === count) say({ latencies });
  }, { connection, concurrency });
  worker.on('error', () => {});
  await worker.waitUntilReady();
  say({ ready: true });
  await untilStdinEnds();
}

async function pace(count, gap) {
  const queue = new Queue('bench', { connection });
  await queue.waitUntilReady();
  for (let i = 0; i < 20; i++) { await queue.add('noop', payload(i)); await pause(gap); }
  let next = now();
  for (let i = 0; i < count; i++) {
    await queue.add('noop', payload(i, now()));
    next += gap;
    await pause(Math.max(0, next - now()));
  }
  await queue.close();
}

const commands = { fill, drain, enqueue, listen, pace };
commands[command](...rest.map(Number)).then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
