/**
 * The load on llama.cpp through node-llama-cpp, which this project does not depend on: reads its orders as JSON from
 * standard input and prints the times of each level's requests as JSON. Run by `concurrency.ts --peer FOLDER`.
 */

const { module, model: modelPath, threads, contextSize, levels } = await new Response(process.stdin).json();
const { getLlama, LlamaLogLevel } = await import(module);
const llama = await getLlama({
  gpu: false,
  build: "never",
  skipDownload: true,
  logLevel: LlamaLogLevel.error,
});
const model = await llama.loadModel({ modelPath });
const results = [];
for (const { clients, prompts, generatedTokens } of levels) {
  const context = await model.createContext({
    sequences: clients,
    contextSize,
    threads,
    batchSize: 512,
    flashAttention: true,
  });
  const started = performance.now();
  const times = await Promise.all(
    prompts.map(async (ofClient) => {
      const sequence = context.getSequence();
      const own = [];
      for (const prompt of ofClient) own.push(await generate(sequence, prompt, generatedTokens));
      return own;
    }),
  );
  results.push({ seconds: (performance.now() - started) / 1000, times: times.flat() });
  await context.dispose();
  console.error(`llama.cpp: ${clients} clients done`);
}
console.log(JSON.stringify(results));
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
