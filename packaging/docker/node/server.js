// An ordinary server: nothing in it is about clusterd.
'use strict';
const http = require('http');

const me = `${process.pid} ${process.env.CLUSTERD_GENERATION} ${process.env.NODE_APP_INSTANCE}\n`;

http.createServer((request, response) => setTimeout(() => response.end(me), 20)).listen(process.env.PORT);
