/**
 * The load on llama.cpp through node-llama-cpp, which this project does not depend on: reads the order of one level as JSON
 * from standard input and prints the times of its requests as JSON. Run by `concurrency.ts --peer FOLDER`.
 */

const order = await new Response(process.stdin).json();
const { module, model: modelPath, threads, contextSize, prompts, generatedTokens } = order;
const { getLlama, LlamaLogLevel } = await import(module);
const llama = await getLlama({
  gpu: false,
  build: "never",
  skipDownload: true,
  logLevel: LlamaLogLevel.error,
});
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({
  sequences: prompts.length,
  contextSize,
  threads,
  batchSize: 512,
  flashAttention: true,
});
// As for the other engine, what the first steps need is not measured.
const slots = prompts.map(() => context.getSequence());
await generate(slots[0], prompts[0][0].slice(-8), 4);
const started = performance.now();
const times = await Promise.all(
  prompts.map(async (ofClient, client) => {
    const own = [];
    for (const prompt of ofClient) own.push(await generate(slots[client], prompt, generatedTokens));
    return own;
  }),
);
console.log(JSON.stringify({ seconds: (performance.now() - started) / 1000, times: times.flat() }));
process.exit(0);

/** A prompt in a slot that may hold the beginning of it from the prompt before. */
async function generate(sequence, prompt, generatedTokens) {
  const started = performance.now();
  await sequence.adaptStateToTokens(prompt.slice(0, -1), false);
  const cachedTokens = sequence.nextTokenIndex;
  const betweenMs = [];
  let firstTokenMs = 0;
  let lastMs = 0;
  let generated = 0;
  const rest = prompt.slice(cachedTokens);
  for await (const _token of sequence.evaluate(rest, { temperature: 0, yieldEogToken: true })) {
    const nowMs = performance.now();
    if (generated === 0) firstTokenMs = nowMs - started;
    else betweenMs.push(nowMs - lastMs);
    lastMs = nowMs;
    generated += 1;
    if (generated >= generatedTokens) break;
  }
  return { firstTokenMs, betweenMs, generatedTokens: generated, cachedTokens };
}
