// MCP's TypeScript client asks `nemotron-ops mcp` over stdio, or over HTTP if a URL and a token are given.
// usage: node mcp_round_trip.mjs stdio PYTHON | http URL TOKEN. Prints one JSON object.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const [kind, where, token] = process.argv.slice(2);
const env = { ...process.env };
const transport =
  kind === "stdio"
    ? new StdioClientTransport({ command: where, args: ["-m", "nemotron_ops", "mcp"], env })
    : new StreamableHTTPClientTransport(new URL(where), {
        requestInit: { headers: { Authorization: `Bearer ${token}` } },
      });
const client = new Client({ name: "round-trip", version: "1.0.0" });
await client.connect(transport);
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const ask = async (name, args) => {
  const { content, isError } = await client.callTool({ name, arguments: args });
  return [content[0].text, isError === true];
};
const first = await ask("run_python", { code: "x = 6 * 7\nprint(x)" });
const second = await ask("run_python", { code: "print(x)" });
await client.close();
console.log(JSON.stringify({ tools, first, second }));
process.exit(0);
