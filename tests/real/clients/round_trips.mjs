// A round trip with a tool by each provider of Vercel's `ai`: a call, its result, the final answer, a second question.
//
// Run in a folder with the packages of package.json: `node round_trips.mjs URL`. Prints one JSON object a line:
// {"api", "calls": [[name, arguments]], "final", "second"}, or {"api", "error"}.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const url = process.argv[2];
const apiKey = "sk-none";
const QUESTION = "What is the weather in Oslo?";
const SECOND = "What is 2 + 2?";

const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey });
const compatible = createOpenAICompatible({ name: "local", baseURL: `${url}/v1`, apiKey });
const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey });
const unstored = { openai: { store: false, include: ["reasoning.encrypted_content"] } };
const MODELS = {
  "openai, responses": [openai.responses("gpt-5")],
  "openai, responses, not stored": [openai.responses("gpt-5"), unstored],
  "openai, chat": [openai.chat("gpt-4o")],
  "openai-compatible, chat": [compatible("tiny")],
  "anthropic, messages": [anthropic("claude-opus-4-8")],
};

async function ask(model, providerOptions, messages, stream, calls) {
  const get_weather = tool({
    description: "Weather of a city",
    inputSchema: z.object({ city: z.string() }),
    execute: async (given) => {
      calls.push(["get_weather", given]);
      return "sunny";
    },
  });
  const asked = { model, messages, tools: { get_weather }, stopWhen: stepCountIs(4), providerOptions, maxRetries: 0 };
  if (!stream) {
    const result = await generateText(asked);
    return [result.text, (await result.response).messages];
  }
  let failed;
  const result = streamText({ ...asked, onError: ({ error }) => (failed = error) });
  await result.consumeStream();
  if (failed) throw failed;
  return [await result.text, (await result.response).messages];
}

for (const [api, [model, options]] of Object.entries(MODELS)) {
  for (const stream of [false, true]) {
    const name = stream ? `${api}, streamed` : api;
    const calls = [];
    try {
      const messages = [{ role: "user", content: QUESTION }];
      const [final, said] = await ask(model, options, messages, stream, calls);
      messages.push(...said, { role: "user", content: SECOND });
      const [second] = await ask(model, options, messages, stream, calls);
      console.log(JSON.stringify({ api: name, calls, final, second }));
    } catch (error) {
      console.log(JSON.stringify({ api: name, error: `${error?.stack ?? error} ${error?.responseBody ?? ""}` }));
    }
  }
}
