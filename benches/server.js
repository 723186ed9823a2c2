// The server that every supervisor in `make bench` runs: it knows none of them and handles no signal.
// `/?ms=200` answers after a wait, `/?cpu=2` after so many milliseconds of work. BENCH_FD is for the bare workers alone, whose sockets share a port.
const http = require('http');
const body = `${process.pid}\n`;
const server = http.createServer((request, response) => {
  const answer = () => response.writeHead(200, { 'content-length': body.length }).end(body);
  const cpu = /[?&]cpu=(\d+)/.exec(request.url);
  if (cpu) for (const end = performance.now() + +cpu[1]; performance.now() < end;);
  const ms = /[?&]ms=(\d+)/.exec(request.url);
  if (ms) setTimeout(answer, +ms[1]);
  else answer();
});
server.listen(process.env.BENCH_FD ? { fd: +process.env.BENCH_FD } : +process.env.PORT);
