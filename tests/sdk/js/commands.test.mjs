// Commands, files and logs through the official JavaScript client, against a server with a real devbox.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { BadRequestError, NotFoundError, Runloop, RunloopSDK, toFile } from "@runloop/api-client";

const options = { baseURL: process.env.OUTGATE_URL, bearerToken: process.env.OUTGATE_API_KEY };
const client = new Runloop(options);
const sdk = new RunloopSDK(options);
let devbox;

before(async () => {
  devbox = await sdk.devbox.create();
});
after(async () => {
  await devbox.shutdown();
  setImmediate(() => process.exit());
});

test("exec with and without callbacks", async () => {
  const plain = await devbox.cmd.exec("echo out; echo err >&2; exit 3");
  assert.deepEqual([plain.exitCode, await plain.stdout(), await plain.stderr()], [3, "out\n", "err\n"]);
  const seen = { stdout: "", stderr: "" };
  const result = await devbox.cmd.exec("for n in 1 2 3; do echo é€😀$n; sleep 0.1; done; echo end >&2", {
    stdout: (text) => (seen.stdout += text),
    stderr: (text) => (seen.stderr += text),
  });
  assert.equal(result.exitCode, 0);
  assert.deepEqual(seen, { stdout: "é€😀1\né€😀2\né€😀3\n", stderr: "end\n" });
});

test("output that was cut is read again as a whole", async () => {
  const result = await devbox.cmd.exec("seq 20000");
  assert.equal((await result.stdout()).split("\n").length, 20001);
});

test("execAsync, state, result and kill", async () => {
  const execution = await devbox.cmd.execAsync("echo one; sleep 60");
  assert.equal((await execution.getState()).status, "running");
  await execution.kill();
  assert.equal((await execution.getState()).status, "completed");
  const done = await devbox.cmd.execAsync("sleep 0.3; echo done", { output: () => {} });
  assert.equal(await (await done.result()).stdout(), "done\n");
});

test("a stream is taken up where it was left", async () => {
  const { execution_id } = await client.devboxes.executeAsync(devbox.id, { command: "echo one; echo two" });
  await client.devboxes.waitForCommand(devbox.id, execution_id, { statuses: ["completed"] });
  const texts = [];
  for await (const chunk of await client.devboxes.executions.streamStdoutUpdates(devbox.id, execution_id, { offset: "4" }))
    texts.push(chunk.output);
  assert.equal(texts.join(""), "two\n");
});

test("a named shell keeps directory and environment, one command at a time", async () => {
  const shell = devbox.shell("mine");
  await shell.exec("cd /tmp && export KEPT=yes");
  const slow = await shell.execAsync("sleep 0.5; echo $KEPT");
  const next = await shell.execAsync("pwd");
  assert.equal((await next.getState()).status, "queued");
  assert.equal(await (await next.result()).stdout(), "/tmp\n");
  assert.equal(await (await slow.result()).stdout(), "yes\n");
  assert.equal(await (await devbox.cmd.exec("pwd; echo $KEPT")).stdout(), "/home/user\n\n");
});

test("typing", async () => {
  const { execution_id } = await client.devboxes.executeAsync(devbox.id, { command: "cat", attach_stdin: true });
  const sent = await client.devboxes.executions.sendStdIn(devbox.id, execution_id, { text: "hello\n" });
  assert.equal(sent.success, true);
  // This client takes a body that names a signal for its own request options.
  await client.devboxes.executions.sendStdIn(devbox.id, execution_id, {}, { body: { signal: "EOF" } });
  const done = await client.devboxes.waitForCommand(devbox.id, execution_id, { statuses: ["completed"] });
  assert.equal(done.stdout, "hello\n");
});

test("files", async () => {
  await devbox.file.write({ file_path: "notes/a.txt", contents: "grüße\n" });
  assert.equal(await devbox.file.read({ file_path: "/home/user/notes/a.txt" }), "grüße\n");
  const bytes = randomBytes(3_000_000);
  await devbox.file.upload({ path: "up.bin", file: await toFile(bytes, "up.bin") });
  const down = await devbox.file.download({ path: "up.bin" });
  assert.ok(Buffer.from(await down.arrayBuffer()).equals(bytes));
  await assert.rejects(devbox.file.read({ file_path: "absent" }), NotFoundError);
  await assert.rejects(devbox.file.write({ file_path: "/etc/x", contents: "" }), BadRequestError);
});

test("logs", async () => {
  const result = await devbox.cmd.exec("echo to be found in the log");
  const { logs } = await devbox.logs({ execution_id: result.executionId });
  assert.ok(logs.some((entry) => entry.message === "to be found in the log" && entry.source === "exec"));
  assert.ok(logs.some((entry) => entry.exit_code === 0));
});
