// Storage objects, secrets and configurations by the official JavaScript client, unchanged, over its default
// transport: HTTP/2 with prior knowledge for the API, and plain fetch for the objects' bytes.
import assert from "node:assert/strict";
import { mkdtemp, mkdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, after } from "node:test";
import { BadRequestError, ConflictError, NotFoundError, Runloop, RunloopSDK } from "@runloop/api-client";

const options = { baseURL: process.env.OUTGATE_URL, bearerToken: process.env.OUTGATE_API_KEY };
const client = new Runloop(options);
const sdk = new RunloopSDK(options);

after(() => setImmediate(() => process.exit()));

test("objects from text, buffer, file and directory", async () => {
  const text = await sdk.storageObject.uploadFromText("grüße", "t", { metadata: { k: "v" } });
  assert.equal(await text.downloadAsText(), "grüße");
  const info = await text.getInfo();
  assert.deepEqual([info.state, info.content_type, info.metadata], ["READ_ONLY", "text", { k: "v" }]);

  const data = Buffer.alloc(1_000_000, 7);
  const buffer = await sdk.storageObject.uploadFromBuffer(data, "b", "binary");
  assert.deepEqual(await buffer.downloadAsBuffer(), data);

  const directory = await mkdtemp(join(tmpdir(), "outgate-"));
  await mkdir(join(directory, "sub"));
  await writeFile(join(directory, "sub", "notes.txt"), "inside");
  const file = await sdk.storageObject.uploadFromFile(join(directory, "sub", "notes.txt"), "notes");
  assert.equal(await file.downloadAsText(), "inside");
  const tree = await sdk.storageObject.uploadFromDir(directory, { name: "tree.tgz" });
  assert.equal((await tree.getInfo()).content_type, "tgz");

  const listed = [];
  for await (const object of client.objects.list({ limit: 2 })) listed.push(object.id);
  assert.deepEqual(listed, [tree.id, file.id, buffer.id, text.id]);
  await text.delete();
  assert.equal((await text.getInfo()).state, "DELETED");
  await assert.rejects(text.downloadAsText(), NotFoundError);
});

test("an object step by step", async () => {
  const made = await sdk.storageObject.create({ name: "o", content_type: "unspecified" });
  await assert.rejects(made.complete(), BadRequestError);
  await made.uploadContent("content");
  await made.complete();
  await assert.rejects(made.complete(), ConflictError);
  await assert.rejects(made.uploadContent("late"), /Upload failed: 409/);
  const { download_url } = await made.getDownloadUrl(60);
  const answer = await fetch(download_url, { headers: { range: "bytes=0-2" } });
  assert.deepEqual([answer.status, await answer.text()], [206, "con"]);
});

test("secrets", async () => {
  const made = await client.secrets.create({ name: "TOKEN", value: "one" });
  assert.match(made.id, /^sec_/);
  assert.equal((await client.secrets.update("TOKEN", { value: "two" })).id, made.id);
  assert.equal((await client.secrets.retrieve("TOKEN")).id, made.id);
  await assert.rejects(client.secrets.create({ name: "TOKEN", value: "x" }), BadRequestError);
  assert.deepEqual((await client.secrets.list()).secrets.map((secret) => secret.name), ["TOKEN"]);
  await client.secrets.delete("TOKEN");
  await assert.rejects(client.secrets.retrieve("TOKEN"), NotFoundError);
});

test("configurations", async () => {
  const gateway = await sdk.gatewayConfig.create({
    name: "g",
    endpoint: "https://api.example.com",
    auth_mechanism: { type: "header", key: "x-api-key" },
  });
  assert.equal((await gateway.getInfo()).auth_mechanism.key, "x-api-key");
  assert.equal((await gateway.update({ description: "d" })).description, "d");
  await gateway.delete();
  const mcp = await sdk.mcpConfig.create({ name: "m", endpoint: "https://mcp.example.com", allowed_tools: ["*"] });
  assert.deepEqual((await mcp.getInfo()).allowed_tools, ["*"]);
  await mcp.delete();
  await assert.rejects(mcp.getInfo(), NotFoundError);
});
