// Websockets of npm: `node websockets.mjs serve PORT`, `graphql URL TOKEN`, or `plain URL TOKEN`; JSON on standard output.
import { createClient } from "graphql-ws";
import { useServer } from "graphql-ws/use/ws";
import { GraphQLObjectType, GraphQLSchema, GraphQLString } from "graphql";
import { WebSocket, WebSocketServer } from "ws";

const [role, where, token] = process.argv.slice(2);

function field(name) {
  return { type: GraphQLString, resolve: (_source, _arguments, context) => context.extra.request.headers[name] };
}

function serve(port) {
  const query = new GraphQLObjectType({
    name: "Query",
    fields: { caller: field("x-actor-id"), auth: field("x-actor-auth"), offered: field("sec-websocket-protocol") },
  });
  const server = new WebSocketServer({ host: "127.0.0.1", port, path: "/ws/graphql" });
  useServer({ schema: new GraphQLSchema({ query }), context: context => context }, server);
  server.on("listening", () => console.log("listening"));
}

// What its documentation shows for whoever must send more than the protocol's own name.
class WithToken extends WebSocket {
  constructor(url, protocols) {
    super(url, ["bearer", token, ...[protocols].flat()]);
  }
}

function graphql(url) {
  const client = createClient({ url, webSocketImpl: WithToken, retryAttempts: 0 });
  let found = null;
  client.subscribe(
    { query: "{ caller auth offered }" },
    {
      next: result => (found = result.data),
      error: () => finish("failed"),
      complete: () => finish(found),
    },
  );
}

function plain(url) {
  const socket = new WebSocket(url, ["bearer", token]);
  socket.on("open", () => socket.send("hello"));
  socket.on("message", data => finish([socket.protocol, data.toString()]));
  socket.on("error", () => finish("failed"));
}

function finish(said) {
  console.log(JSON.stringify(said));
  process.exit();
}

({ serve: () => serve(Number(where)), graphql: () => graphql(where), plain: () => plain(where) })[role]();
