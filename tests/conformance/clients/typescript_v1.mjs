// The TypeScript SDK of the handshake era. Arguments: the command that starts the server.
import assert from 'node:assert/strict';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { step, walk } from './walk.mjs';

const [command, ...args] = process.argv.slice(2);
const client = new Client({ name: 'typescript-v1', version: '0' });

await step('connects', async () => {
  await client.connect(new StdioClientTransport({ command, args, env: process.env }));
  assert.equal(client.getServerVersion().name, 'dramatis');
});
await walk(client);
await client.close();
