// The `openai` package for Node, with nothing but its base URL and key changed.
import assert from "node:assert/strict";
import OpenAI from "openai";

const { TOLLWAY_URL, TOLLWAY_KEY, SPENT_KEY } = process.env;
const client = new OpenAI({ baseURL: `${TOLLWAY_URL}/v1`, apiKey: TOLLWAY_KEY });
const ask = { model: "m", messages: [{ role: "user", content: "hi" }] };

const whole = await client.chat.completions.create(ask);
assert.equal(whole.choices[0].message.content, "one two three");
assert.equal(whole.usage.total_tokens, 13);

let text = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  text += chunk.choices[0].delta.content ?? "";
}
assert.equal(text, "one two three");

const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];
const called = await client.chat.completions.create({ ...ask, tools });
assert.deepEqual(JSON.parse(called.choices[0].message.tool_calls[0].function.arguments), { city: "Oslo" });

// The account's one slot is taken by a stream: the next request is told to come again in a second, and does.
const running = await client.chat.completions.create({ ...ask, stream: true });
await running[Symbol.asyncIterator]().next();
const began = performance.now();
const second = client.chat.completions.create(ask);
setTimeout(() => running.controller.abort(), 500);
assert.equal((await second).choices[0].message.content, "one two three");
assert.ok(performance.now() - began >= 1000);

const spent = new OpenAI({ baseURL: `${TOLLWAY_URL}/v1`, apiKey: SPENT_KEY });
await assert.rejects(spent.chat.completions.create(ask), (error) => {
  assert.ok(error instanceof OpenAI.RateLimitError);
  assert.deepEqual([error.status, error.code], [429, "insufficient_quota"]);
  assert.ok(error.requestID);
  return true;
});
