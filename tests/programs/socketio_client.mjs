// A browser's Socket.IO client, in Node: `node socketio_client.mjs FOLDER PLAN`, a JSON line per event.
// PLAN: {url, tokens, transports?, namespace?, stay?}; each connection attempt takes the next token, the last for ever.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [folder, text] = process.argv.slice(2);
const { io } = createRequire(`${folder}/`)("socket.io-client");
const plan = JSON.parse(text);
const say = (event, data = null) => console.log(JSON.stringify([event, data]));
let attempt = 0;

const socket = io(plan.url + (plan.namespace ?? ""), {
  auth: answer => answer({ token: plan.tokens[Math.min(attempt++, plan.tokens.length - 1)] }),
  reconnectionDelay: 50,
  reconnectionDelayMax: 200,
  timeout: 5000,
  ...(plan.transports ? { transports: plan.transports } : {}),
});
socket.on("connect", async () => {
  const claims = await socket.timeout(5000).emitWithAck("whoami");
  const echoed = await socket.timeout(5000).emitWithAck("echo", { bytes: Buffer.from([0, 255]), text: "ä" });
  say("connected", { claims, text: echoed.text, bytes: [...echoed.bytes], transport: socket.io.engine.transport.name });
});
const tellOfUpgrades = () => socket.io.engine.on("upgrade", transport => say("upgraded", transport.name));
tellOfUpgrades();
socket.io.on("reconnect_attempt", tellOfUpgrades);
socket.on("connect_error", error => say("connect_error", { message: error.message, data: error.data ?? null, active: socket.active }));
socket.on("disconnect", reason => say("disconnect", reason));
createInterface({ input: process.stdin }).on("line", line => {
  if (line === "connect") socket.connect();
  else if (line === "leave") socket.disconnect();
}).on("close", () => process.exit(0));
