// Tunnels by the official JavaScript client, unchanged, over HTTP/2 with prior knowledge.
import assert from "node:assert/strict";
import { test, after } from "node:test";
import { BadRequestError, RunloopSDK } from "@runloop/api-client";

const sdk = new RunloopSDK({ baseURL: process.env.OUTGATE_URL, bearerToken: process.env.OUTGATE_API_KEY });

after(() => setImmediate(() => process.exit()));

test("a tunnel is opened, named and removed", async () => {
  const box = await sdk.devbox.create();
  assert.equal(await box.getTunnel(), null);
  const tunnel = await box.net.enableTunnel({ auth_mode: "authenticated" });
  assert.equal(tunnel.auth_mode, "authenticated");
  assert.ok(tunnel.auth_token.length >= 32);
  assert.deepEqual(await box.getTunnel(), tunnel);
  assert.ok((await box.getTunnelUrl(8000)).startsWith(`https://8000-${tunnel.tunnel_key}.tunnel.`));
  await assert.rejects(box.net.enableTunnel({}), BadRequestError);
  await box.net.removeTunnel();
  assert.equal(await box.getTunnel(), null);
  const atOnce = await sdk.devbox.create({ tunnel: { auth_mode: "open" } });
  assert.equal((await atOnce.getTunnel()).auth_mode, "open");
});
