// What every TypeScript client does with a fresh server: the first minutes of a newcomer.
// Both SDKs spell these methods alike. The runner reads the line that each step prints.
import assert from 'node:assert/strict';

export async function step(sentence, check) {
  try {
    const result = await check();
    console.log(`ok: ${sentence}`);
    return result;
  } catch (error) {
    console.log(`failed: ${sentence}`);
    throw error;
  }
}

export async function walk(client) {
  const slug = await useTools(client);
  await readResources(client, slug);
  await usePrompt(client, slug);
}

async function useTools(client) {
  await step('lists the tools with their schemas', async () => {
    const { tools } = await client.listTools();
    for (const { name, title, description } of tools) {
      assert.ok(title && description, `${name} has a title and a description`);
    }
    const { inputSchema } = tools.find(({ name }) => name === 'register_persona');
    assert.deepEqual(inputSchema.required.toSorted(), ['name', 'role']);
  });
  const slug = await step('registers a persona', async () => {
    const persona = await call(client, 'register_persona', { name: 'Con', role: 'Developer' });
    const { id, slug, name, role } = persona;
    assert.deepEqual([id, slug, name, role], [1, 'developer-con-1', 'Con', 'developer']);
    return slug;
  });
  await step('finds the persona under its role', async () => {
    const { found, personas } = await call(client, 'lookup_role', { name: 'DEVELOPER' });
    assert.equal(found, true);
    assert.deepEqual(personas.map((persona) => persona.slug), [slug]);
  });
  await step('is told what is wrong with a blank name', () =>
    refused(client, { name: '  ', role: 'developer' }, /\bname\b.*\bblank\b/),
  );
  await step('is told which argument is unknown', () =>
    refused(client, { name: 'Con', role: 'developer', colour: 'red' }, /\bcolour\b/),
  );
  return slug;
}

async function call(client, name, args) {
  const result = await client.callTool({ name, arguments: args });
  assert.ok(!result.isError, JSON.stringify(result));
  return result.structuredContent;
}

async function refused(client, args, reason) {
  const result = await client.callTool({ name: 'register_persona', arguments: args });
  assert.equal(result.isError, true, JSON.stringify(result));
  const [{ type, text }] = result.content;
  assert.equal(type, 'text');
  assert.match(text, reason);
  assert.doesNotMatch(text, /Traceback|pydantic|input_value/);
}

async function readResources(client, slug) {
  await step('lists the persona among the resources', async () => {
    const { resources } = await client.listResources();
    const uris = resources.map(({ uri }) => uri);
    assert.ok(uris.includes(`persona://${slug}/skill.md`), uris.join('\n'));
  });
  await step('reads the skill file', async () => {
    const { contents } = await client.readResource({ uri: `persona://${slug}/skill.md` });
    assert.equal(contents[0].mimeType, 'text/markdown');
    assert.match(contents[0].text, /^# Con — developer\n/);
  });
  await step('completes the slug in the address of a resource', () =>
    completed(client, { type: 'ref/resource', uri: 'persona://{slug}/skill.md' }, 'slug', slug),
  );
}

async function usePrompt(client, slug) {
  await step('finds the prompt, with every argument optional', async () => {
    const { prompts } = await client.listPrompts();
    const prompt = prompts.find(({ name }) => name === 'become_persona');
    const found = prompt.arguments.map(({ name, required }) => [name, required ?? false]);
    assert.deepEqual(found, [['persona', false], ['task', false]]);
  });
  await step('completes the slug in the argument of the prompt', () =>
    completed(client, { type: 'ref/prompt', name: 'become_persona' }, 'persona', slug),
  );
  await step('gets the prompt', async () => {
    const prompt = { name: 'become_persona', arguments: { persona: slug, task: 'Review it.' } };
    const { messages } = await client.getPrompt(prompt);
    const texts = messages.map(({ content }) => content.text).join('\n');
    assert.match(texts, /\bCon\b/);
    assert.match(texts, /Review it\./);
  });
}

async function completed(client, ref, name, slug) {
  const { completion } = await client.complete({ ref, argument: { name, value: 'dev' } });
  assert.deepEqual(completion.values, [slug]);
}
