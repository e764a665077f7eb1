// A devbox's whole life by the official JavaScript client, unchanged, over HTTP/2 with prior knowledge.
import assert from "node:assert/strict";
import { test, after } from "node:test";
import { BadRequestError, Runloop, RunloopSDK } from "@runloop/api-client";

const options = { baseURL: process.env.OUTGATE_URL, bearerToken: process.env.OUTGATE_API_KEY };
const client = new Runloop(options);
const sdk = new RunloopSDK(options);

after(() => setImmediate(() => process.exit()));

const LIFE = {
  resource_size_request: "CUSTOM_SIZE",
  custom_cpu_cores: 2,
  custom_gb_memory: 4,
  custom_disk_size: 8,
  keep_alive_time_seconds: 600,
  launch_commands: ["true"],
  available_ports: [8000],
  after_idle: { idle_time_seconds: 600, on_idle: "shutdown" },
  lifecycle: { lifecycle_hooks: { suspend_commands: ["sync"], suspend_deadline_ms: 1000 } },
  user_parameters: { username: "root", uid: 0 },
};

test("the object layer", async () => {
  const policy = await sdk.networkPolicy.create({ name: "p" });
  const box = await sdk.devbox.create({
    name: "box",
    metadata: { k: "v" },
    environment_variables: { A: "b" },
    entrypoint: "sleep 100",
    file_mounts: { "/etc/motd": "hello" },
    mounts: [
      { type: "file_mount", target: "notes", content: "text" },
      { type: "code_mount", repo_owner: "o", repo_name: "r", token: null },
    ],
    launch_parameters: { ...LIFE, network_policy_id: policy.id },
  });
  const view = await box.getInfo();
  assert.equal(view.status, "running");
  assert.deepEqual(view.launch_parameters, { ...LIFE, network_policy_id: policy.id });
  await box.suspend();
  assert.equal((await box.awaitSuspended()).status, "suspended");
  await assert.rejects(policy.delete(), BadRequestError);
  await box.resumeAsync();
  assert.ok(["suspended", "running", "starting", "provisioning"].includes((await box.getInfo()).status));
  assert.equal((await box.awaitRunning()).status, "running");
  await box.keepAlive();
  await assert.rejects(box.resume(), BadRequestError);
  assert.equal((await box.shutdown()).status, "shutdown");
  await policy.delete();
});

test("the generated client", async () => {
  const box = await client.devboxes.createAndAwaitRunning({ launch_parameters: { keep_alive_time_seconds: 50 } });
  assert.equal((await client.devboxes.retrieveResourceUsage(box.id)).status, "running");
  await client.devboxes.suspend(box.id);
  assert.equal((await client.devboxes.awaitSuspended(box.id)).status, "suspended");
  assert.deepEqual((await client.devboxes.list({ status: "suspended" })).devboxes.map((one) => one.id), [box.id]);
  await client.devboxes.resume(box.id);
  assert.equal((await client.devboxes.awaitRunning(box.id)).status, "running");
  assert.equal((await client.devboxes.shutdown(box.id, { force: "true" })).shutdown_reason, "api_shutdown");
});
