// A program of somebody's that calls the gateway: `node node_client.mjs URL TOKEN`, JSON on standard output.
import http from "node:http";
import { createHash, randomBytes } from "node:crypto";
import { ReadableStream } from "node:stream/web";

const [url, token] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${token}` };
const sha256 = bytes => createHash("sha256").update(bytes).digest("hex");
const body = randomBytes(3_000_000);

function inPieces(bytes, size) {
  let start = 0;
  return new ReadableStream({
    pull(controller) {
      if (start >= bytes.length) return controller.close();
      controller.enqueue(bytes.subarray(start, (start += size)));
    },
  });
}

async function viaFetch(path, options = {}) {
  const response = await fetch(url + path, { ...options, headers: { ...headers, ...options.headers } });
  return { status: response.status, body: await response.text() };
}

function viaAgent(agent) {
  return new Promise((resolve, reject) => {
    const request = http.get(`${url}/agent`, { agent, headers }, response => {
      response.resume();
      response.on("end", () => resolve({ status: response.statusCode, reused: request.reusedSocket }));
    });
    request.on("error", reject);
  });
}

const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const kept = [];
for (let count = 0; count < 20; count++) kept.push(await viaAgent(agent));
agent.destroy();

const anonymous = await fetch(`${url}/nobody`);
console.log(JSON.stringify({
  kept,
  get: await viaFetch("/fetch?a=%C3%A9"),
  many: (await Promise.all(Array.from({ length: 100 }, () => viaFetch("/many")))).map(answer => answer.status),
  fixed: await viaFetch("/fixed", { method: "POST", body }),
  streamed: await viaFetch("/streamed", { method: "POST", body: inPieces(body, 70_001), duplex: "half" }),
  sent: sha256(body),
  refused: { status: anonymous.status, code: (await anonymous.json()).code },
}));
