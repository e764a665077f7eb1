// Every operation of the object layer by the official JavaScript client, over HTTP/2 with prior knowledge.
// The server's side notes what was called, and by which version of HTTP; this only has to call, and to be answered.
import assert from "node:assert/strict";
import { test, after } from "node:test";
import { Runloop, RunloopSDK, toFile } from "@runloop/api-client";

const options = { baseURL: process.env.OUTGATE_URL, bearerToken: process.env.OUTGATE_API_KEY };
const client = new Runloop(options);
const sdk = new RunloopSDK(options);
const soon = { polling: { pollingIntervalMs: 50, maxAttempts: 200 } };

after(() => setImmediate(() => process.exit()));

async function useCommands(box) {
  const said = [];
  const done = await box.cmd.exec("echo out; echo err >&2", { stdout: (t) => said.push(t), stderr: (t) => said.push(t) });
  assert.deepEqual([done.exitCode, said.join("").split("\n").sort()], [0, ["", "err", "out"]]);
  assert.equal((await box.cmd.exec("exit 3")).exitCode, 3);
  const { execution_id } = await client.devboxes.executeAsync(box.id, { command: "cat", attach_stdin: true });
  assert.equal((await client.devboxes.executions.sendStdIn(box.id, execution_id, { text: "typed" })).success, true);
  const endless = await box.cmd.execAsync("sleep 60");
  await endless.kill();
  assert.equal((await endless.getState()).status, "completed");
  await client.devboxes.executions.kill(box.id, execution_id);
  const ended = await client.devboxes.waitForCommand(box.id, execution_id, { statuses: ["completed"] });
  assert.equal(ended.stdout, "typed");
  assert.equal((await client.devboxes.executeSync(box.id, { command: "exit 4" })).exit_status, 4);
  assert.ok((await box.logs({ execution_id: done.executionId })).logs.length > 0);
}

async function useFiles(box) {
  await box.file.write({ file_path: "a.txt", contents: "text" });
  assert.equal(await box.file.read({ file_path: "a.txt" }), "text");
  await box.file.upload({ path: "b.bin", file: await toFile(Buffer.from("bytes"), "b.bin") });
  assert.equal(Buffer.from(await (await box.file.download({ path: "b.bin" })).arrayBuffer()).toString(), "bytes");
}

async function useAccess(box) {
  assert.match((await box.net.createSSHKey()).ssh_private_key, /PRIVATE KEY/);
  assert.ok((await client.devboxes.createPtyTunnel(box.id)).auth_token);
  const tunnel = await box.net.enableTunnel();
  assert.deepEqual(await box.getTunnel(), tunnel);
  await box.net.removeTunnel();
}

async function live(box) {
  assert.equal((await client.devboxes.update(box.id, { name: "named" })).name, "named");
  await box.keepAlive();
  await box.suspend();
  assert.equal((await box.awaitSuspended()).status, "suspended");
  await box.resume();
  assert.deepEqual((await sdk.devbox.list()).map((one) => one.id), [box.id]);
  assert.equal((await client.devboxes.retrieveResourceUsage(box.id)).status, "running");
  const other = await client.devboxes.create();
  assert.equal((await client.devboxes.shutdown(other.id)).status, "shutdown");
}

async function useSnapshots(box) {
  const snapshot = await box.snapshotDisk();
  await snapshot.update({ name: "s" });
  const atOnce = await client.devboxes.snapshotDisk(box.id);
  assert.deepEqual((await sdk.snapshot.list()).map((one) => one.id), [atOnce.id, snapshot.id]);
  await snapshot.delete();
  assert.equal((await snapshot.queryStatus()).status, "deleted");
}

async function useBlueprints() {
  const blueprint = await sdk.blueprint.create({ name: "b" }, soon);
  assert.deepEqual((await sdk.blueprint.list()).map((one) => one.id), [blueprint.id]);
  assert.equal((await blueprint.logs()).blueprint_id, blueprint.id);
  assert.deepEqual((await client.blueprints.listPublic()).blueprints, []);
  assert.ok((await client.blueprints.preview({ name: "b" })).dockerfile);
  await blueprint.delete();
  assert.equal((await blueprint.getInfo()).state, "deleted");
}

async function useObjects() {
  const made = await sdk.storageObject.uploadFromBuffer(Buffer.from("x"), "o", "binary");
  assert.equal(await made.downloadAsText(), "x");
  assert.equal((await made.getInfo()).state, "READ_ONLY");
  assert.deepEqual((await sdk.storageObject.list()).map((one) => one.id), [made.id]);
  await made.delete();
}

test("every operation", async () => {
  const policy = await sdk.networkPolicy.create({ name: "p" });
  assert.equal((await sdk.networkPolicy.fromId(policy.id).getInfo()).id, policy.id);
  await policy.update({ allowed_hostnames: ["github.com"] });
  assert.equal((await sdk.networkPolicy.list()).length, 1);
  const box = await sdk.devbox.create({ launch_parameters: { network_policy_id: policy.id } });
  await useCommands(box);
  await useFiles(box);
  await useAccess(box);
  await live(box);
  await useSnapshots(box);
  await box.shutdown();
  await useBlueprints();
  await useObjects();
  await policy.delete();
});
