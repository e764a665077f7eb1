// SSH keys and PTY tunnels by the official JavaScript client, unchanged, over its default transport: HTTP/2 with prior knowledge.
import assert from "node:assert/strict";
import { test, after } from "node:test";
import { BadRequestError, NotFoundError, Runloop, RunloopSDK } from "@runloop/api-client";

const options = { baseURL: process.env.OUTGATE_URL, bearerToken: process.env.OUTGATE_API_KEY };
const client = new Runloop(options);
const sdk = new RunloopSDK(options);

after(() => setImmediate(() => process.exit()));

test("ways to terminals", async () => {
  const devbox = await sdk.devbox.create();
  const made = await devbox.net.createSSHKey();
  assert.deepEqual(Object.keys(made).sort(), ["id", "ssh_private_key", "ssh_user", "url"]);
  assert.equal(made.id, devbox.id);
  assert.equal(made.ssh_user, "user");
  assert.match(made.ssh_private_key, /^-----BEGIN OPENSSH PRIVATE KEY-----\n/);

  const tunnel = await client.devboxes.createPtyTunnel(devbox.id);
  assert.match(tunnel.tunnel_key, /^[a-z2-7]{24}$/);
  assert.ok(tunnel.auth_token.length >= 32);
  assert.notEqual((await client.devboxes.createPtyTunnel(devbox.id)).tunnel_key, tunnel.tunnel_key);

  await devbox.shutdown();
  await assert.rejects(devbox.net.createSSHKey(), BadRequestError);
  await assert.rejects(client.devboxes.createPtyTunnel(devbox.id), BadRequestError);
  await assert.rejects(client.devboxes.createPtyTunnel("dbx_000000000000000000000"), NotFoundError);
});
