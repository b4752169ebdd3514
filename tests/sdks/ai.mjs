// Vercel's `ai` package with its OpenAI provider, with nothing but its base URL and key changed.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateText, jsonSchema, streamText, tool } from "ai";

const { TOLLWAY_URL, TOLLWAY_KEY, SPENT_KEY } = process.env;
const model = createOpenAI({ baseURL: `${TOLLWAY_URL}/v1`, apiKey: TOLLWAY_KEY }).chat("m");

const whole = await generateText({ model, prompt: "hi" });
assert.equal(whole.text, "one two three");
assert.equal(whole.usage.totalTokens, 13);

const streamed = streamText({ model, prompt: "hi" });
let text = "";
for await (const part of streamed.textStream) text += part;
assert.equal(text, "one two three");
assert.equal((await streamed.usage).totalTokens, 13);

const weather = tool({ description: "weather", inputSchema: jsonSchema({ type: "object" }) });
const called = await generateText({ model, prompt: "hi", tools: { weather } });
assert.deepEqual(called.toolCalls[0].input, { city: "Oslo" });

// The account's one slot is taken by a stream: the next request is told to come again in a second, and does.
const leave = new AbortController();
const running = streamText({ model, prompt: "hi", abortSignal: leave.signal, onError: () => {} });
await running.textStream[Symbol.asyncIterator]().next();
const began = performance.now();
const second = generateText({ model, prompt: "hi" });
setTimeout(() => leave.abort(), 500);
assert.equal((await second).text, "one two three");
assert.ok(performance.now() - began >= 1000);

const spent = createOpenAI({ baseURL: `${TOLLWAY_URL}/v1`, apiKey: SPENT_KEY }).chat("m");
await assert.rejects(generateText({ model: spent, prompt: "hi", maxRetries: 0 }), (error) => {
  assert.ok(APICallError.isInstance(error));
  assert.equal(error.statusCode, 429);
  assert.equal(JSON.parse(error.responseBody).error.code, "insufficient_quota");
  return true;
});
