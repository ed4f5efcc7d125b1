// What fhir-kit-client does with the server whose base URL is the argument; an error says what was not as it should be.
// https://github.com/Vermonster/fhir-kit-client

import assert from "node:assert/strict";
import { Client } from "fhir-kit-client";

const URN = "urn:fhir-kit";
const client = new Client({ baseUrl: process.argv[2] });

const refusal = async (status, call) => {
  const error = await call.then(() => assert.fail(`${status} was expected`), (error) => error);
  assert.equal(error.response?.status, status, error.stack);
  return error.response.data;
};
const responseOf = (answer) => Client.httpFor(answer).response;
const patient = (value) => ({
  resourceType: "Patient",
  identifier: [{ system: URN, value }],
  name: [{ family: `${value} Byron` }],
});
const weight = (subject, value) => ({
  resourceType: "Observation",
  identifier: [{ system: URN, value: `${value}` }],
  status: "final",
  code: { coding: [{ system: "http://loinc.org", code: "29463-7" }] },
  subject: { reference: subject },
  valueQuantity: { value, unit: "kg", system: "http://unitsofmeasure.org", code: "kg" },
});
const statuses = (bundle) => bundle.entry.map((entry) => entry.response.status.slice(0, 3));
const values = (bundle) => bundle.entry.map((entry) => entry.resource.valueQuantity.value);
const resourceType = "Patient";

const describesItself = async () => {
  assert.equal((await client.capabilityStatement()).fhirVersion, "4.0.1");
  assert.deepEqual(await client.smartAuthMetadata(), {}, "no authorization is asked for");
};

const writes = async () => {
  const made = await client.create({ resourceType, body: patient("ada") });
  assert.equal(responseOf(made).status, 201);
  assert.ok(responseOf(made).headers.get("location").endsWith(`Patient/${made.id}/_history/1`));
  const { id } = made;
  const ada = await client.update({ resourceType, id, body: { ...made, gender: "female" } });
  assert.equal(responseOf(ada).headers.get("etag"), 'W/"2"');
  const stale = { headers: { "If-Match": 'W/"1"' } };
  await refusal(412, client.update({ resourceType, id, body: made, options: stale }));
  const jsonPatch = [{ op: "add", path: "/active", value: true }];
  assert.equal((await client.patch({ resourceType, id, jsonPatch })).meta.versionId, "3");
  await refusal(422, client.patch({ resourceType, id, jsonPatch: [{ op: "remove", path: "/deceasedBoolean" }] }));
  await refusal(400, client.create({ resourceType, body: { ...patient("eve"), unknown: 1 } }));
  return client.read({ resourceType, id });
};

const readsVersions = async ({ id }) => {
  assert.equal((await client.vread({ resourceType, id, version: "1" })).gender, undefined);
  await refusal(404, client.vread({ resourceType, id, version: "9" }));
  await refusal(404, client.read({ resourceType, id: "nobody" }));
  const history = await client.history({ resourceType, id });
  assert.deepEqual(history.entry.map((entry) => entry.resource.meta.versionId), ["3", "2", "1"]);
  assert.ok((await client.history({ resourceType })).total >= 3);
  assert.equal((await client.history()).type, "history");
  assert.equal((await client.resolve({ reference: `Patient/${id}` })).id, id);
  assert.equal((await client.resolve({ reference: `${client.baseUrl}/Patient/${id}` })).id, id);
};

const searches = async ({ id }) => {
  for (const value of [60, 61, 62, 63, 64]) {
    await client.create({ resourceType: "Observation", body: weight(`Patient/${id}`, value) });
  }
  const searchParams = { identifier: `${URN}|`, _sort: "-value-quantity", _count: 2 };
  const first = await client.search({ resourceType: "Observation", searchParams });
  const second = await client.nextPage({ bundle: first });
  const third = await client.nextPage({ bundle: second });
  assert.deepEqual([first, second, third].map(values), [[64, 63], [62, 61], [60]]);
  assert.equal(client.nextPage({ bundle: third }), undefined);
  assert.deepEqual(values(await client.prevPage({ bundle: third })), [62, 61]);
  const posted = await client.search({ resourceType: "Observation", searchParams, options: { postSearch: true } });
  assert.deepEqual(values(posted), [64, 63]);
  const compartment = { resourceType, id };
  for (const postSearch of [false, true]) {
    const found = await client.search({ resourceType: "Observation", compartment, options: { postSearch } });
    assert.equal(found.total, 5);
  }
  const everything = { _type: "Patient,Observation", identifier: `${URN}|` };
  for (const postSearch of [false, true]) {
    assert.equal((await client.systemSearch({ searchParams: everything, options: { postSearch } })).total, 6);
  }
  const including = { identifier: `${URN}|64`, _include: ["Observation:subject", "Observation:performer"] };
  const found = await client.search({ resourceType: "Observation", searchParams: including });
  assert.deepEqual(found.entry.map((entry) => entry.search.mode), ["match", "include"]);
  const [match] = found.entry;
  assert.equal((await client.resolve({ reference: match.resource.subject.reference, context: found })).id, id);
  const strict = { headers: { Prefer: "handling=strict" } };
  await refusal(400, client.search({ resourceType, searchParams: { unknown: "x" }, options: strict }));
};

const doesConditionally = async () => {
  const searchParams = { identifier: `${URN}|bob` };
  const unless = { headers: { "If-None-Exist": `identifier=${URN}|bob` } };
  const bob = await client.create({ resourceType, body: patient("bob"), options: unless });
  assert.equal(responseOf(bob).status, 201);
  const found = await client.create({ resourceType, body: patient("bob"), options: unless });
  assert.deepEqual([responseOf(found).status, found.id], [200, bob.id]);
  const updated = await client.update({ resourceType, searchParams, body: patient("bob") });
  assert.deepEqual([updated.id, updated.meta.versionId], [bob.id, "2"]);
  const where = `Patient?identifier=${URN}|bob`;
  const merge = { headers: { "Content-Type": "application/merge-patch+json" } };
  const patched = await client.request(where, { method: "PATCH", body: { active: true }, options: merge });
  assert.equal(patched.meta.versionId, "3");
  const unchanged = { headers: { "If-None-Match": 'W/"3"' } };
  await refusal(304, client.read({ resourceType, id: bob.id, options: unchanged }));
  await refusal(412, client.request(`Observation?identifier=${URN}|`, { method: "DELETE" }));
  assert.equal(responseOf(await client.request(where, { method: "DELETE" })).status, 204);
  await refusal(410, client.read({ resourceType, id: bob.id }));
};

const sendsBundles = async ({ id }) => {
  const fullUrl = "urn:uuid:9f5e5a1f-0f0e-4a52-9f5e-0c6f8f3c5b11";
  const post = (resource) => ({ resource, request: { method: "POST", url: resource.resourceType } });
  const ask = (url) => ({ request: { method: "GET", url } });
  const family = [{ ...post(patient("eve")), fullUrl }, post(weight(fullUrl, 70))];
  const body = { resourceType: "Bundle", type: "transaction", entry: family };
  const done = await client.transaction({ body });
  assert.deepEqual(statuses(done), ["201", "201"]);
  const seen = await client.resolve({ reference: done.entry[1].response.location });
  assert.equal((await client.resolve({ reference: seen.subject.reference })).identifier[0].value, "eve");
  const failing = { ...body, entry: [post(patient("zoe")), ask("Patient/nobody")] };
  await refusal(404, client.transaction({ body: failing }));
  const batch = await client.batch({ body: { ...failing, type: "batch", entry: [ask(`Patient/${id}`), ask("Patient/nobody")] } });
  assert.deepEqual(statuses(batch), ["200", "404"]);
  assert.equal((await client.search({ resourceType, searchParams: { identifier: `${URN}|zoe` } })).total, 0);
};

const operates = async ({ id }) => {
  const valid = await client.operation({ name: "validate", resourceType, input: patient("ada") });
  assert.ok(valid.issue.every((issue) => ["information", "warning"].includes(issue.severity)));
  const meta = await client.operation({ name: "$meta", resourceType, id, method: "GET" });
  assert.equal(meta.parameter[0].valueMeta.versionId, "3");
  await refusal(404, client.operation({ name: "unknown", resourceType, id }));
};

const deletes = async ({ id }) => {
  assert.equal(responseOf(await client.delete({ resourceType, id })).status, 204);
  await refusal(410, client.read({ resourceType, id }));
  const [newest] = (await client.history({ resourceType, id })).entry;
  assert.deepEqual([newest.request.method, newest.resource], ["DELETE", undefined]);
};

await describesItself();
const ada = await writes();
for (const chapter of [readsVersions, searches, doesConditionally, sendsBundles, operates, deletes]) {
  await chapter(ada);
}
console.log("the story is told");
