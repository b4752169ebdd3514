// The `@anthropic-ai/sdk` package for Node, with nothing but its base URL and key changed.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const { TOLLWAY_URL, TOLLWAY_KEY, SPENT_KEY } = process.env;
const client = new Anthropic({ baseURL: TOLLWAY_URL, apiKey: TOLLWAY_KEY });
const ask = { model: "m", max_tokens: 50, messages: [{ role: "user", content: "hi" }] };

const whole = await client.messages.create(ask);
assert.equal(whole.content[0].type, "text");
assert.ok(whole.usage.output_tokens > 0);

const streamed = await client.messages.stream(ask).finalMessage();
assert.equal(streamed.content[0].type, "text");
assert.ok(streamed.usage.output_tokens > 0);

const tools = [{ name: "json", input_schema: { type: "object" } }];
const called = await client.messages.create({ ...ask, tools });
assert.ok(called.content.some((block) => block.type === "tool_use"));

// The account's one slot is taken by a stream: the next request is told to come again in a second, and does.
const running = await client.messages.create({ ...ask, stream: true });
await running[Symbol.asyncIterator]().next();
const began = performance.now();
const second = client.messages.create(ask);
setTimeout(() => running.controller.abort(), 500);
assert.equal((await second).content[0].type, "text");
assert.ok(performance.now() - began >= 1000);

const spent = new Anthropic({ baseURL: TOLLWAY_URL, apiKey: SPENT_KEY });
await assert.rejects(spent.messages.create(ask), (error) => {
  assert.ok(error instanceof Anthropic.APIError);
  assert.deepEqual([error.status, error.error.error.type], [402, "billing_error"]);
  assert.ok(error.requestID);
  return true;
});
