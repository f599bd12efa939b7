// Sends events with the CloudEvents SDK for JavaScript: binary, structured, structured with bytes, batch.
//
// The SDK does not encode header values, so its callers must (HTTP binding, 3.1.3.2), as this program does. It does not
// write batches; a JSON list of its events is one.

import { readFileSync } from "node:fs";
import { CloudEvent, HTTP, emitterFor, Mode } from "cloudevents";

const [base, file] = process.argv.slice(2);
const given = JSON.parse(readFileSync(file, "utf8"));
const data = { user_id: "sdk", ip: "198.51.100.7" };

const event = ({ id, partner }, payload) =>
  new CloudEvent({
    id,
    partner,
    source: "https://sdk.example.com/logins",
    type: "foretell.login.succeeded",
    time: "2025-03-01T10:00:00Z",
    datacontenttype: "application/json",
    data: payload,
  });

const encoded = (value) =>
  String(value).replace(/[^\x21\x23\x24\x26-\x7e]/gu, (c) =>
    [...Buffer.from(c)].map((byte) => "%" + byte.toString(16).toUpperCase().padStart(2, "0")).join(""),
  );

async function send(headers, body, ids) {
  const attributes = Object.entries(headers).map(([name, value]) => [
    name,
    name.startsWith("ce-") ? encoded(value) : value,
  ]);
  const answer = await fetch(`${base}/v1/events`, { method: "POST", headers: attributes, body });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${ids}: ${answer.status} ${text}`);
  const found = JSON.parse(text).positions.map((position) => position.id);
  if (JSON.stringify(found) !== JSON.stringify(ids)) throw new Error(`sent ${ids}, was read as ${found}`);
}

for (const of of given) {
  for (const [mode, payload] of [
    [Mode.BINARY, data],
    [Mode.STRUCTURED, data],
    [Mode.STRUCTURED, new TextEncoder().encode(JSON.stringify(data))],
  ]) {
    const emit = emitterFor(({ headers, body }) => send(headers, body, [of.id]), { binding: HTTP, mode });
    await emit(event(of, payload));
  }
}
const batch = JSON.stringify(given.map((of) => event(of, data)));
await send({ "content-type": "application/cloudevents-batch+json" }, batch, given.map((of) => of.id));
