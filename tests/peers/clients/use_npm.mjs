// The three JavaScript clients. Run in the folder that holds node_modules; the argument is the engine's address.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { Ollama } from "ollama";
import OpenAI from "openai";

const url = process.argv[2];
const SENTENCE = "The quick brown fox jumps over the lazy dog.";
const AFTER_TOOL = "It is sunny in Paris today.";
const ARGUMENTS = { city: "Paris", days: 3 };
const parameters = { type: "object", properties: { city: { type: "string" }, days: { type: "integer" } } };
const tool = { type: "function", function: { name: "get_weather", description: "Weather.", parameters } };
const person = {
  type: "object",
  properties: { name: { enum: ["Ada"] }, age: { enum: [36] } },
  required: ["name", "age"],
  additionalProperties: false,
};
const messages = [{ role: "user", content: "hi" }];

async function idle(name) {
  const deadline = Date.now() + 10000;
  while (Date.now() < deadline) {
    const status = await (await fetch(`${url}/api/status`)).json();
    if (!status.requests.some((entry) => entry.model === "endless:latest")) return;
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error(`${name}: the cancelled stream still runs`);
}

async function withOllama() {
  const client = new Ollama({ host: url });
  assert.equal((await client.chat({ model: "chat", messages })).message.content, SENTENCE);
  let text = "";
  for await (const part of await client.chat({ model: "chat", messages, stream: true })) text += part.message.content;
  assert.equal(text, SENTENCE);
  const first = await client.chat({ model: "tool", messages, tools: [tool] });
  assert.deepEqual(first.message.tool_calls[0].function.arguments, ARGUMENTS);
  const after = [...messages, first.message, { role: "tool", tool_name: "get_weather", content: "sunny" }];
  assert.equal((await client.chat({ model: "tool", messages: after, tools: [tool] })).message.content, AFTER_TOOL);
  const made = await client.chat({ model: "chat", messages, format: person });
  assert.deepEqual(JSON.parse(made.message.content), { name: "Ada", age: 36 });
  assert.equal((await client.embed({ model: "embed", input: ["a", "b"] })).embeddings.length, 2);
  await assert.rejects(client.chat({ model: "nope", messages }), /model 'nope' not found/);
  const stream = await client.generate({ model: "endless", prompt: "go", stream: true });
  for await (const _ of stream) { stream.abort(); break; }
  await idle("ollama");
}

async function withOpenAI() {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const answer = await client.chat.completions.create({ model: "chat", messages });
  assert.equal(answer.choices[0].message.content, SENTENCE);
  let text = "";
  for await (const part of await client.chat.completions.create({ model: "chat", messages, stream: true }))
    text += part.choices[0]?.delta?.content ?? "";
  assert.equal(text, SENTENCE);
  const first = await client.chat.completions.create({ model: "tool", messages, tools: [tool] });
  const [call] = first.choices[0].message.tool_calls;
  assert.deepEqual(JSON.parse(call.function.arguments), ARGUMENTS);
  let pieces = "";
  for await (const part of await client.chat.completions.create({ model: "tool", messages, tools: [tool], stream: true }))
    pieces += part.choices[0]?.delta?.tool_calls?.[0]?.function?.arguments ?? "";
  assert.deepEqual(JSON.parse(pieces), ARGUMENTS);
  const result = { role: "tool", tool_call_id: call.id, content: "sunny" };
  const after = [...messages, first.choices[0].message, result];
  const said = await client.chat.completions.create({ model: "tool", messages: after, tools: [tool] });
  assert.equal(said.choices[0].message.content, AFTER_TOOL);
  const format = { type: "json_schema", json_schema: { name: "p", strict: true, schema: person } };
  const made = await client.chat.completions.create({ model: "chat", messages, response_format: format });
  assert.deepEqual(JSON.parse(made.choices[0].message.content), { name: "Ada", age: 36 });
  assert.equal((await client.embeddings.create({ model: "embed", input: "a" })).data[0].embedding.length, 384);
  assert.equal((await client.responses.create({ model: "chat", input: "hi" })).output_text, SENTENCE);
  await assert.rejects(client.chat.completions.create({ model: "nope", messages }), OpenAI.NotFoundError);
  const stream = await client.chat.completions.create({ model: "endless", messages, stream: true });
  for await (const _ of stream) break;
  await idle("openai");
}

async function withAnthropic() {
  const client = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
  const answer = await client.messages.create({ model: "chat", max_tokens: 50, messages });
  assert.equal(answer.content[0].text, SENTENCE);
  const streamed = await client.messages.stream({ model: "chat", max_tokens: 50, messages }).finalMessage();
  assert.equal(streamed.content[0].text, SENTENCE);
  const tools = [{ name: "get_weather", input_schema: parameters }];
  const first = await client.messages.create({ model: "tool", max_tokens: 50, messages, tools });
  const flowed = await client.messages.stream({ model: "tool", max_tokens: 50, messages, tools }).finalMessage();
  assert.deepEqual(flowed.content.at(-1).input, ARGUMENTS);
  assert.ok((await client.messages.countTokens({ model: "tool", messages, tools })).input_tokens > 0);
  assert.deepEqual(first.content[0].input, ARGUMENTS);
  const result = { type: "tool_result", tool_use_id: first.content[0].id, content: "sunny" };
  const after = [...messages, { role: "assistant", content: first.content }, { role: "user", content: [result] }];
  const said = await client.messages.create({ model: "tool", max_tokens: 50, messages: after, tools });
  assert.equal(said.content[0].text, AFTER_TOOL);
  const forced = await client.messages.create({
    model: "tool",
    max_tokens: 200,
    messages,
    tools: [{ name: "person", input_schema: person }],
    tool_choice: { type: "tool", name: "person" },
  });
  assert.deepEqual(forced.content.at(-1).input, { name: "Ada", age: 36 });
  await assert.rejects(client.messages.create({ model: "nope", max_tokens: 5, messages }), Anthropic.NotFoundError);
  const stream = await client.messages.create({ model: "endless", max_tokens: 9999, messages, stream: true });
  for await (const _ of stream) { stream.controller.abort(); break; }
  await idle("anthropic");
}

const all = { ollama: withOllama, openai: withOpenAI, anthropic: withAnthropic };
await all[process.argv[3]]();
