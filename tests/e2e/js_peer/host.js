// js-libp2p as the page networking wants it: TCP, Noise, Yamux, identify, gossipsub without signatures, and requests of
// one frame that are answered by one frame.

import "./polyfill.js";

import { gossipsub } from "@libp2p/gossipsub";
import { identify } from "@libp2p/identify";
import { noise } from "@libp2p/noise";
import { tcp } from "@libp2p/tcp";
import { byteStream } from "@libp2p/utils";
import { yamux } from "@libp2p/yamux";
import { createLibp2p } from "libp2p";

import { SpecError, intFromLittleEndian } from "../../../test_vectors/clients/javascript/bytes.js";
import * as networking from "../../../test_vectors/clients/javascript/networking.js";

/** A connection that ended, or no answer in time. */
export class Unreachable extends Error {}

const explain = (error) => (error instanceof SpecError ? error : new Unreachable(error.message, { cause: error }));

/** Without a mesh every message is announced (IHAVE) and asked for (IWANT), and none is sent unasked. */
const NO_MESH = { D: 0, Dlo: 0, Dhi: 0, Dout: 0, Dscore: 0 };
const MESH = { D: networking.MESH_DEGREE, Dlo: networking.MESH_DEGREE_LOW, Dhi: networking.MESH_DEGREE_HIGH };

/** Start a host that listens on the loopback interface; port 0 lets the system choose. */
export function startHost({ port, topic, mesh }) {
  return createLibp2p({
    addresses: { listen: [`/ip4/127.0.0.1/tcp/${port}`] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: {
      identify: identify(),
      pubsub: gossipsub({
        ...(mesh ? MESH : NO_MESH),
        globalSignaturePolicy: "StrictNoSign",
        msgIdFn: ({ topic: name, data }) => networking.computeMessageId(name, data),
        heartbeatInterval: networking.HEARTBEAT_MS,
        seenTTL: networking.SEEN_MS,
        maxInboundDataLength: networking.MAX_GOSSIP_BYTES,
        allowedTopics: [topic],
        fallbackToFloodsub: false,
        allowPublishToZeroTopicPeers: true,
      }),
    },
  });
}

async function readFrame(bytes, limit, signal) {
  const length = Number(intFromLittleEndian((await bytes.read({ bytes: 4, signal })).subarray()));
  networking.checkFrameLength(length, limit);
  return (await bytes.read({ bytes: length, signal })).subarray();
}

/**
 * Send a request; return the payload of the response.
 *
 * A protocol that has none has a `limit` of undefined: then this returns when the other side has closed the stream,
 * which says that it has read the request. Throws Unreachable, or a SpecError for a frame that is too long.
 */
export async function ask(host, peerId, protocol, payload, limit, timeout = networking.RESPONSE_TIMEOUT_MS) {
  const signal = AbortSignal.timeout(timeout);
  let stream;
  try {
    const [connection] = host.getConnections(peerId);
    if (connection === undefined) throw new Unreachable(`${peerId} is not connected`);
    stream = await connection.newStream(protocol, { signal });
    const bytes = byteStream(stream);
    await bytes.write(networking.encodeFrame(payload), { signal });
    const answer = await (limit === undefined ? bytes.read({ signal }) : readFrame(bytes, limit, signal));
    await stream.close({ signal });
    return answer;
  } catch (error) {
    stream?.abort(error);
    throw explain(error);
  }
}

/**
 * Answer requests of one protocol.
 *
 * `answer(peerId, payload)` returns the response's payload, or undefined for none, and throws nothing; `onError(peerId,
 * error)` gets an Unreachable, or a SpecError for a frame that is too long.
 */
export function serve(host, protocol, limit, answer, onError) {
  return host.handle(protocol, async (stream, connection) => {
    const signal = AbortSignal.timeout(networking.RESPONSE_TIMEOUT_MS);
    try {
      const bytes = byteStream(stream);
      const response = answer(connection.remotePeer, await readFrame(bytes, limit, signal));
      if (response !== undefined) await bytes.write(networking.encodeFrame(response), { signal });
      await stream.close({ signal });
    } catch (error) {
      stream.abort(error);
      onError(connection.remotePeer, explain(error));
    }
  });
}
