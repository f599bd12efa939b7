// Performs the first tasks of an integration with a generated TypeScript client. Argument: the base URL of a service.

import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";
import assert from "node:assert/strict";

const api = createClient<paths>({ baseUrl: process.argv[2]! });
const day = 86_400_000;
const at = (days: number) => new Date(Date.now() + days * day).toISOString();

const events: components["schemas"]["EventBatch"] = [
  {
    specversion: "1.0", id: "typescript-login", source: "urn:typescript", type: "foretell.login.succeeded",
    data: { user_id: "typescript", ip: "198.51.100.7", asn: 4_200_000_000 },
  },
  {
    specversion: "1.0", id: "typescript-visit", source: "urn:typescript", type: "foretell.appointment.booked",
    data: { client_id: "typescript", appointment_id: "typescript", starts_at: at(3), time_zone: "Europe/Dublin" },
  },
];
const appended = await api.POST("/v1/events", {
  params: { header: { Prefer: "wait=20" } },
  headers: { "Content-Type": "application/cloudevents-batch+json" },
  body: events,
});
assert.equal(appended.data?.folded, true, JSON.stringify(appended.error));

const score = await api.POST("/v1/risk/logins", { body: { user_id: "typescript", ip: "203.0.113.9" } });
const decision: "allow" | "challenge" | "deny" | undefined = score.data?.decision;
assert.ok(decision && score.data?.history.first_seen, JSON.stringify(score.error));

const visit = await api.POST("/v1/risk/appointments", { body: { client_id: "typescript", starts_at: at(9) } });
assert.ok(visit.data && visit.data.score >= 0 && visit.data.score <= 1, JSON.stringify(visit.error));

const user = await api.GET("/v1/users/{user_id}", { params: { path: { user_id: "typescript" } } });
assert.equal(user.data?.history.successes, 1, JSON.stringify(user.error));

const agenda = await api.GET("/v1/agenda", { params: { query: { from: at(0), to: at(7), limit: 100 } } });
const ids = agenda.data?.visits.filter((visit) => visit.client_id === "typescript").map((visit) => visit.appointment_id);
assert.deepEqual(ids, ["typescript"], JSON.stringify(agenda.error));

const reminder = () =>
  api.POST("/v1/appointments/{appointment_id}/reminders", {
    params: { path: { appointment_id: "typescript" }, header: { "Idempotency-Key": "typescript" } },
    body: { reason: "by phone" },
  });
const reminders = [await reminder(), await reminder()];
assert.ok(reminders[0]!.data, JSON.stringify(reminders[0]!.error));
assert.equal(reminders[0]!.data.reminder_id, reminders[1]!.data?.reminder_id);

const missing = await api.GET("/v1/users/{user_id}", { params: { path: { user_id: "nobody" } } });
const problem: components["schemas"]["Problem"] | undefined = missing.error;
assert.deepEqual([missing.response.status, problem?.code], [404, "USER_NOT_FOUND"]);
const invalid = await api.POST("/v1/risk/logins", { body: { user_id: "typescript", ip: "nowhere" } });
assert.equal(invalid.error?.errors?.[0]?.pointer, "/ip");
