// Serves a small GGUF model through OpenAI's Chat Completions API. It streams, and it forces tool calls with a grammar.
//
//   node server.mjs MODEL.gguf [PORT] [always]
//
// A model of 135 million parameters does not follow a described format, so a grammar enforces it. With `tool_choice`
// "required" the answer is a call of one of the offered functions. With "auto", the default, the model chooses between
// such a call and text. `always` treats "auto" like "required". The arguments are only those that the function requires.
import http from "node:http";
import { getLlama, LlamaCompletion, LlamaText, SpecialTokensText } from "node-llama-cpp";

const [modelPath, port = "8081", always] = process.argv.slice(2);
const WINDOW = 8192; // tokens that SmolLM2 can read, including the answer
const MAX_ANSWER = 400; // tokens; the model repeats itself long before
const MAX_TEXT = 120; // characters of one argument
const MAX_ITEMS = 2;

const llama = await getLlama({ gpu: false, build: "never", maxThreads: 2 });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({ contextSize: WINDOW, threads: 2 });
const completion = new LlamaCompletion({ contextSequence: context.getSequence() });

const BEGIN = new SpecialTokensText("<|im_start|>");
const END = new SpecialTokensText("<|im_end|>");

function renderMessage({ role, content, tool_calls: calls = [] }) {
  if (role === "tool") return renderMessage({ role: "user", content: `Result: ${content}` }); // the model was trained without the role `tool`
  const written = calls.map(({ function: f }) => `{"name": "${f.name}", "arguments": ${f.arguments}}`);
  return [BEGIN, `${role}\n${[content, ...written].filter(Boolean).join("\n")}`, END, "\n"];
}

function prompt([system, ...messages], functions) {
  const offered = functions.map((f) => `- ${f.name}(${(f.parameters.required ?? []).join(", ")}): ${f.description}`);
  const how = offered.length ? ["Functions:", ...offered, 'Call one with {"name": …, "arguments": {…}}.'] : [];
  const first = { role: "system", content: [system.content, ...how].join("\n") };
  return [...[first, ...messages].flatMap(renderMessage), BEGIN, "assistant\n"];
}

function beginning(functions, mustCall) {
  const names = functions.map((f) => JSON.stringify(f.name)).join(" | ");
  const call = `"{\\"name\\": \\"" (${names}) "\\", \\"arguments\\": "`;
  return llama.createGrammar({ grammar: `root ::= ${call}${mustCall ? "" : " | [^{] [^\\x00]*"}` });
}

function bounded(schema) {
  if (schema.type === "string") return { type: "string", maxLength: MAX_TEXT };
  if (schema.type === "array") return { type: "array", items: bounded(schema.items), maxItems: MAX_ITEMS };
  if (schema.type !== "object") return { type: schema.type };
  const required = (schema.required ?? []).map((name) => [name, bounded(schema.properties[name])]);
  return { type: "object", properties: Object.fromEntries(required) };
}

/** Gives the deltas of one answer to `send`; returns its `finish_reason`. */
async function answer(body, send, signal) {
  const functions = (body.tools ?? []).map((tool) => tool.function);
  const asked = prompt(body.messages, functions);
  const size = LlamaText(asked).tokenize(model.tokenizer).length;
  if (size + MAX_ANSWER > WINDOW) {
    const message = `${size} tokens and an answer of ${MAX_ANSWER} exceed the context window of ${WINDOW}`;
    throw Object.assign(new Error(message), { code: "context_length_exceeded" });
  }
  const started = Date.now();
  const options = { temperature: body.temperature ?? 0.7, maxTokens: MAX_ANSWER, signal, disableContextShift: true };
  let begun = "";
  const isCall = () => functions.length > 0 && begun.startsWith("{");
  let said = await completion.generateCompletionWithMeta(LlamaText(asked), {
    ...options,
    grammar: functions.length ? await beginning(functions, always || body.tool_choice === "required") : undefined,
    onTextChunk(text) {
      begun += text;
      if (!isCall()) send({ content: text });
    },
  });
  const name = isCall() ? begun.split('"')[3] : "";
  if (name) {
    const call = (changes) => send({ tool_calls: [{ index: 0, ...changes }] });
    const grammar = await llama.createGrammarForJsonSchema(bounded(functions.find((f) => f.name === name).parameters));
    call({ id: `call_${started}`, type: "function", function: { name, arguments: "" } });
    said = await completion.generateCompletionWithMeta(LlamaText([...asked, begun]), {
      ...options,
      grammar,
      customStopTriggers: grammar.stopGenerationTriggers,
      onTextChunk: (text) => call({ function: { arguments: text } }),
    });
  }
  console.log(`${size} tokens read, ${((Date.now() - started) / 1000).toFixed(1)} s: ${name || "text"}`);
  return said.metadata.stopReason === "maxTokens" ? "length" : name ? "tool_calls" : "stop";
}

async function serve(request, response, signal) {
  const body = JSON.parse(Buffer.concat(await request.toArray()).toString());
  const send = (delta, finish_reason = null) => {
    if (!response.headersSent) response.writeHead(200, { "Content-Type": "text/event-stream" });
    const chunk = { id: "0", object: "chat.completion.chunk", created: 0, model: body.model };
    response.write(`data: ${JSON.stringify({ ...chunk, choices: [{ index: 0, delta, finish_reason }] })}\n\n`);
  };
  try {
    send({}, await answer(body, send, signal));
    response.end("data: [DONE]\n\n");
  } catch (error) {
    if (response.headersSent) return response.destroy();
    response.writeHead(400, { "Content-Type": "application/json" });
    response.end(JSON.stringify({ error: { message: error.message, code: error.code } }));
  }
}

let last = Promise.resolve(); // there is one context, so answers come one after the other
const server = http.createServer((request, response) => {
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  last = last.then(() => serve(request, response, gone.signal)).catch(console.error);
});
server.listen(Number(port), "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${port}/v1`));
