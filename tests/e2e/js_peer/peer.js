// The command line: runs one peer until it is interrupted, and writes what happens to standard output, a JSON object a
// line. See README.md.

import { parseArgs } from "node:util";

import { readEngine } from "../../../test_vectors/clients/javascript/models.js";
import { Chain } from "./chain.js";
import { FAULTS } from "./faults.js";
import { readNetwork } from "./network_file.js";
import { Node } from "./node.js";

const USAGE = "usage: node peer.js --network FILE [--port N] [--peer MULTIADDR]... [--no-mesh] [--fault FAULT]";
const MODEL = "mini";

function readOptions() {
  const { values } = parseArgs({
    options: {
      network: { type: "string" },
      port: { type: "string", default: "0" },
      peer: { type: "string", multiple: true, default: [] },
      "no-mesh": { type: "boolean", default: false },
      fault: { type: "string" },
    },
  });
  if (values.network === undefined) throw new Error("--network FILE is missing");
  if (values.fault !== undefined && !FAULTS.includes(values.fault)) throw new Error(`FAULT is one of ${FAULTS}`);
  return values;
}

function fail(error) {
  console.error(`error: ${error.message}; ${USAGE}`);
  process.exit(2);
}

const report = (event) => process.stdout.write(JSON.stringify({ time: Date.now(), ...event }) + "\n");

function makeNode() {
  const { network, port, peer, "no-mesh": noMesh, fault } = readOptions();
  const chain = new Chain({ ...readNetwork(network), engine: readEngine(MODEL) });
  return new Node(chain, { port, peers: peer, mesh: !noMesh, fault }, report);
}

let node;
try {
  node = makeNode();
} catch (error) {
  fail(error);
}
await node.start();
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => node.stop());
