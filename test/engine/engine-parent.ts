/** A process that keeps an engine process busy, prints its id and waits to be killed. */

import { ProcessEngine } from "../../src/engine/engine-client.ts";
import { fakeEngineOptions } from "./fake-model.ts";
import { request } from "./requests.ts";

const engine = await ProcessEngine.start(fakeEngineOptions("stepMs=1"));
let told = false;
for (;;) {
  for await (const _event of engine.generate(request(0, { maxTokens: 900 }))) {
    if (!told) console.log(engine.pid);
    told = true;
  }
}
