// node llama.mjs MODEL PROMPT DECODED: prefill and decode of llama.cpp on all cores, in tokens a second.
import { getLlama, LlamaLogLevel } from "node-llama-cpp";
import os from "node:os";

const [modelPath, prompt, decoded] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const threads = os.availableParallelism();
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: threads });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({ contextSize: 512, threads, batchSize: prompt });
const sequence = context.getSequence();
const tokens = model.tokenize("The quick brown fox jumps over the lazy dog. ".repeat(20)).slice(0, prompt);

// Once for the page cache, once for the figure.
let prefill = 0;
for (let round = 0; round < 2; round++) {
    await sequence.clearHistory();
    const begun = performance.now();
    await sequence.evaluateWithoutGeneratingNewTokens(tokens);
    prefill = (prompt * 1000) / (performance.now() - begun);
}
const begun = performance.now();
let count = 0;
for await (const _ of sequence.evaluate([tokens[5]], { temperature: 0 })) {
    if (++count >= decoded) break;
}
console.log(prefill, (count * 1000) / (performance.now() - begun));
process.exit(0);
