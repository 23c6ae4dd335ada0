// The TypeScript SDK that speaks both eras. Arguments: mode (legacy or auto), the version that
// must come of it, and the command that starts the server.
import assert from 'node:assert/strict';
import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { step, walk } from './walk.mjs';

const [mode, version, command, ...args] = process.argv.slice(2);
const options = { versionNegotiation: { mode } };
const client = new Client({ name: 'typescript-v2', version: '0' }, options);

await step(`connects and agrees on ${version}`, async () => {
  await client.connect(new StdioClientTransport({ command, args, env: process.env }));
  assert.equal(client.getServerVersion().name, 'dramatis');
  assert.equal(client.getNegotiatedProtocolVersion(), version);
});
await walk(client);
await client.close();
