// Node's cluster module as a supervisor: BENCH_WORKERS workers, and a rolling reload on SIGUSR2 that
// prints `reloaded` when the old workers are gone. BENCH_LEAVE says how an old worker leaves: `signal`
// (SIGINT, as PM2 does) or `disconnect` (worker.disconnect(), the module's own way), and SIGKILL after five seconds: a busy keep-alive client never lets go.
// BENCH_QUEUE=shared: all workers accept from one queue, instead of being given connections in turn.
const cluster = require('cluster');
if (process.env.BENCH_QUEUE === 'shared') cluster.schedulingPolicy = cluster.SCHED_NONE;
cluster.setupPrimary({ exec: require('path').join(__dirname, 'server.js') });

const start = () => new Promise((resolve) => {
  const worker = cluster.fork();
  worker.once('listening', () => resolve(worker));
});
const leave = (worker) => new Promise((resolve) => {
  worker.once('exit', resolve);
  worker.leaving = true;
  setTimeout(() => worker.process.kill('SIGKILL'), 5000).unref();
  if (process.env.BENCH_LEAVE === 'disconnect') worker.disconnect();
  else worker.process.kill('SIGINT');
});
cluster.on('exit', (worker) => { if (!worker.leaving) start(); });

(async () => {
  await Promise.all(Array.from({ length: +process.env.BENCH_WORKERS }, start));
  console.log('ready');
})();
process.on('SIGUSR2', async () => {
  for (const old of Object.values(cluster.workers)) {
    await start();
    await leave(old);
  }
  console.log('reloaded');
});
