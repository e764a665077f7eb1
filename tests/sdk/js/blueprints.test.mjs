// The official JavaScript client with blueprints, over HTTP/2 with prior knowledge.
import assert from "node:assert/strict";
import { test, after } from "node:test";
import { BadRequestError, NotFoundError, Runloop, RunloopSDK } from "@runloop/api-client";

const options = { baseURL: process.env.OUTGATE_URL, bearerToken: process.env.OUTGATE_API_KEY };
const client = new Runloop(options);
const sdk = new RunloopSDK(options);
const soon = { polling: { pollingIntervalMs: 50, maxAttempts: 200 } };

after(() => setImmediate(() => process.exit()));

test("the object layer", async () => {
  const policy = await sdk.networkPolicy.create({ name: "inherited" });
  const blueprint = await sdk.blueprint.create(
    {
      name: "js",
      dockerfile: "FROM ubuntu:22.04\n",
      network_policy_id: policy.id,
      launch_parameters: { network_policy_id: policy.id },
    },
    soon,
  );
  const info = await blueprint.getInfo();
  assert.equal(info.status, "build_complete");
  assert.equal(info.parameters.network_policy_id, policy.id);
  assert.equal((await blueprint.logs()).blueprint_id, blueprint.id);
  const devbox = await blueprint.createDevbox();
  const view = await devbox.getInfo();
  assert.equal(view.blueprint_id, blueprint.id);
  assert.equal(view.launch_parameters.network_policy_id, policy.id);
  await assert.rejects(blueprint.delete(), BadRequestError);
  await devbox.shutdown();
  await assert.rejects(policy.delete(), BadRequestError);
  await blueprint.delete();
  assert.equal((await blueprint.getInfo()).state, "deleted");
  await policy.delete();
});

test("the generated client", async () => {
  const made = await client.blueprints.createAndAwaitBuildCompleted({ name: "one" }, soon);
  assert.equal(made.status, "build_complete");
  const listed = [];
  for await (const blueprint of client.blueprints.list({ name: "one" })) listed.push(blueprint.id);
  assert.deepEqual(listed, [made.id]);
  const preview = await client.blueprints.preview({ name: "p", system_setup_commands: ["id"] });
  assert.match(preview.dockerfile, /^FROM stock\n.*RUN id\n$/s);
  await client.blueprints.delete(made.id);
  await assert.rejects(client.blueprints.retrieve("bpt_" + "a".repeat(21)), NotFoundError);
});
