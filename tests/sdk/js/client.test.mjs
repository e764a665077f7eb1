// The official JavaScript client, unchanged, over its default transport: HTTP/2 with prior knowledge.
import assert from "node:assert/strict";
import { test, after } from "node:test";
import { ConflictError, BadRequestError, NotFoundError, Runloop, RunloopSDK } from "@runloop/api-client";

const options = { baseURL: process.env.OUTGATE_URL, bearerToken: process.env.OUTGATE_API_KEY };
const client = new Runloop(options);
const sdk = new RunloopSDK(options);

after(() => setImmediate(() => process.exit()));

test("the five operations", async () => {
  const created = await client.networkPolicies.create({
    name: "js",
    allowed_hostnames: ["GitHub.com", "*.github.com"],
    allowed_cidrs: [{ cidr: "192.0.2.0/24", ports: [{ port: 443, protocol: "TCP" }] }],
  });
  assert.match(created.id, /^npol_/);
  assert.deepEqual(created.egress.allowed_hostnames, ["GitHub.com", "*.github.com"]);
  assert.deepEqual(await client.networkPolicies.retrieve(created.id), created);

  const updated = await client.networkPolicies.update(created.id, { allow_agent_gateway: true });
  assert.deepEqual(updated.egress, { ...created.egress, allow_agent_gateway: true });
  assert.deepEqual(await client.networkPolicies.update(created.id), updated);

  const listed = [];
  for await (const policy of client.networkPolicies.list({ limit: 1 })) listed.push(policy.id);
  assert.deepEqual(listed, [created.id]);

  assert.deepEqual(await client.networkPolicies.delete(created.id), updated);
  await assert.rejects(client.networkPolicies.retrieve(created.id), (error) => {
    assert.ok(error instanceof NotFoundError);
    assert.equal(error.message, `404 NetworkPolicy ${created.id} not found.`);
    return true;
  });
});

test("refusals come at once as the right error", async () => {
  const policy = await client.networkPolicies.create({ name: "taken" });
  const started = Date.now();
  await assert.rejects(client.networkPolicies.create({ name: "taken" }), ConflictError);
  await assert.rejects(client.networkPolicies.create({ name: "x", allowed_hostnames: ["*"] }), (error) => {
    assert.ok(error instanceof BadRequestError);
    assert.match(error.message, /^400 allowed_hostnames\[0\]: '\*' would cover every name; set allow_all instead/);
    return true;
  });
  assert.ok(Date.now() - started < 5000);
  await client.networkPolicies.delete(policy.id);
});

test("many at once on one connection", async () => {
  const policies = await Promise.all(
    Array.from({ length: 40 }, (_, n) => client.networkPolicies.create({ name: `many ${n}` })),
  );
  await Promise.all(policies.map((policy) => client.networkPolicies.update(policy.id, { allow_all: true })));
  await Promise.all(policies.map((policy) => client.networkPolicies.delete(policy.id)));
});

test("the object layer from policy to command", async () => {
  const policy = await sdk.networkPolicy.create({ name: "object layer", allowed_hostnames: ["github.com"] });
  const devbox = await sdk.devbox.create({ launch_parameters: { network_policy_id: policy.id } });
  const info = await devbox.getInfo();
  assert.equal(info.status, "running");
  assert.equal(info.launch_parameters.network_policy_id, policy.id);

  const result = await devbox.cmd.exec("echo out; echo err >&2; exit 3");
  assert.equal(result.exitCode, 3);
  assert.equal(await result.stdout(), "out\n");
  assert.equal(await result.stderr(), "err\n");
  const execution = await devbox.cmd.execAsync("sleep 0.3; echo done");
  assert.equal(await (await execution.result()).stdout(), "done\n");

  await policy.update({ allowed_hostnames: [] });
  await assert.rejects(policy.delete(), BadRequestError);
  await devbox.keepAlive();
  await devbox.shutdown();
  assert.equal((await devbox.getInfo()).status, "shutdown");
  await policy.delete();
});
