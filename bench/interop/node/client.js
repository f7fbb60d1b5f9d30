'use strict';
// Each line on stdin is a message to send ("!reset" cuts the connection); each message is a line on stdout.
const WebSocket = require('ws');
const readline = require('node:readline');

const ws = new WebSocket(process.argv[2], { perMessageDeflate: true });
ws.on('message', (data) => process.stdout.write(data.toString() + '\n'));
ws.on('close', (code) => process.stdout.write(JSON.stringify({ type: '!closed', code }) + '\n'));
ws.on('error', () => {});
const waiting = [];
ws.on('open', () => waiting.splice(0).forEach((line) => ws.send(line)));
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  if (line === '!reset') ws._socket.resetAndDestroy();
  else if (ws.readyState === WebSocket.OPEN) ws.send(line);
  else waiting.push(line);
});
