// Sends logins with kafkajs: send.js CLIENT BROKERS TOPIC COUNT. Each login has its own user.

import kafkajs from "kafkajs";

const { Kafka, Partitioners, logLevel } = kafkajs;
const [client, brokers, topic, count] = process.argv.slice(2);
const createPartitioner = { kafkajs: undefined, "kafkajs-legacy": Partitioners.LegacyPartitioner }[client];
if (!(client === "kafkajs" || createPartitioner)) throw new Error(`unknown client ${client}`);

const messages = Array.from({ length: Number(count) }, (_, n) => ({
  key: `default:user-${n}`,
  value: JSON.stringify({
    specversion: "1.0",
    id: `e${n}`,
    source: "urn:producers",
    type: "foretell.login.succeeded",
    data: { user_id: `user-${n}`, ip: "198.51.100.7" },
  }),
  headers: { "content-type": "application/cloudevents+json" },
}));

const kafka = new Kafka({ brokers: brokers.split(","), logLevel: logLevel.ERROR });
const producer = kafka.producer({ createPartitioner });
await producer.connect();
await producer.send({ topic, messages, acks: -1 });
await producer.disconnect();
