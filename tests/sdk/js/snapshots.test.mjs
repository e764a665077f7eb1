// Disk snapshots by the official JavaScript client, unchanged, over its default transport: HTTP/2 with prior knowledge.
import assert from "node:assert/strict";
import { test, after } from "node:test";
import { BadRequestError, NotFoundError, Runloop, RunloopSDK } from "@runloop/api-client";

const options = { baseURL: process.env.OUTGATE_URL, bearerToken: process.env.OUTGATE_API_KEY };
const client = new Runloop(options);
const sdk = new RunloopSDK(options);

after(() => setImmediate(() => process.exit()));

test("the object layer", async () => {
  const policy = await sdk.networkPolicy.create({ name: "p", allowed_hostnames: ["github.com"] });
  const source = await sdk.devbox.create({ launch_parameters: { network_policy_id: policy.id } });
  const snapshot = await source.snapshotDisk({ name: "s", commit_message: "m", metadata: { k: "v" } });
  const info = await snapshot.getInfo();
  assert.equal(info.status, "complete");
  assert.deepEqual(
    [info.snapshot.name, info.snapshot.commit_message, info.snapshot.metadata, info.snapshot.source_devbox_id],
    ["s", "m", { k: "v" }, source.id],
  );
  const begun = await source.snapshotDiskAsync();
  await begun.awaitCompleted();
  assert.deepEqual((await sdk.snapshot.list({ devbox_id: source.id })).map((one) => one.id), [begun.id, snapshot.id]);
  await snapshot.update({ name: "t" });
  assert.equal((await snapshot.getInfo()).snapshot.name, "t");
  await source.shutdown();

  const heir = await snapshot.createDevbox({ name: "heir" });
  const view = await heir.getInfo();
  assert.deepEqual([view.status, view.snapshot_id], ["running", snapshot.id]);
  assert.equal(view.launch_parameters.network_policy_id, policy.id);
  await snapshot.delete();
  assert.equal((await snapshot.queryStatus()).status, "deleted");
  await heir.shutdown();
  await assert.rejects(sdk.devbox.createFromSnapshot(snapshot.id), BadRequestError);
  await begun.delete();
  await policy.delete();
});

test("the generated client", async () => {
  const box = await client.devboxes.createAndAwaitRunning();
  const made = await client.devboxes.snapshotDisk(box.id, { metadata: { key: "1" } });
  assert.equal(made.size_bytes, 4096);
  const listed = [];
  for await (const one of client.devboxes.diskSnapshots.list({ limit: 1 })) listed.push(one.id);
  assert.deepEqual(listed, [made.id]);
  const found = await client.devboxes.listDiskSnapshots({ "metadata[key]": "1" });
  assert.deepEqual(found.snapshots.map((one) => one.id), [made.id]);
  const none = await client.devboxes.listDiskSnapshots({ "metadata[key][in]": "2,3" });
  assert.deepEqual(none.snapshots, []);
  await client.devboxes.deleteDiskSnapshot(made.id);
  await assert.rejects(client.devboxes.diskSnapshots.delete(made.id), NotFoundError);
  await client.devboxes.shutdown(box.id);
});
