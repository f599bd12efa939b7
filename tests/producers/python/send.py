"""Sends logins with a Kafka client for Python: send.py CLIENT BROKERS TOPIC COUNT. Each login has its own user."""

import asyncio
import json
import sys

HEADERS = [("content-type", b"application/cloudevents+json")]


def logins(count):
    for n in range(count):
        event = {
            "specversion": "1.0", "id": f"e{n}", "source": "urn:producers", "type": "foretell.login.succeeded",
            "data": {"user_id": f"user-{n}", "ip": "198.51.100.7"},
        }
        yield f"default:user-{n}".encode(), json.dumps(event).encode()


def kafka_python(brokers, topic, count):
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=brokers)
    sent = [producer.send(topic, key=key, value=value, headers=HEADERS) for key, value in logins(count)]
    producer.flush()
    for future in sent:
        future.get()
    producer.close()


def aiokafka(brokers, topic, count):
    from aiokafka import AIOKafkaProducer

    async def run():
        producer = AIOKafkaProducer(bootstrap_servers=brokers)
        await producer.start()
        sent = [await producer.send(topic, value, key=key, headers=HEADERS) for key, value in logins(count)]
        await asyncio.gather(*sent)
        await producer.stop()

    asyncio.run(run())


def confluent(settings):
    def send(brokers, topic, count):
        from confluent_kafka import Producer

        def delivered(error, _):
            if error:
                sys.exit(f"not sent: {error}")

        producer = Producer({"bootstrap.servers": brokers, **settings})
        for key, value in logins(count):
            producer.produce(topic, value, key, headers=HEADERS, on_delivery=delivered)
            producer.poll(0)
        if producer.flush(60):
            sys.exit("not all were sent within 60 s")

    return send


CLIENTS = {
    "kafka-python": kafka_python,
    "aiokafka": aiokafka,
    "confluent-kafka": confluent({}),
    "confluent-kafka-murmur2": confluent({"partitioner": "murmur2_random"}),
}

client, brokers, topic, count = sys.argv[1:]
CLIENTS[client](brokers, topic, int(count))
