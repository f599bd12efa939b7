"""Sends events with the CloudEvents SDK for Python: binary, structured, structured with bytes, batch.

The SDK encodes header values itself. It does not write batches; a JSON list of its events is one.
"""

import json
import sys
import urllib.request
from datetime import datetime, timezone

from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

base, file = sys.argv[1:]
with open(file, encoding="utf-8") as events:
    given = json.load(events)
data = {"user_id": "sdk", "ip": "198.51.100.7"}


def event(of, payload):
    return CloudEvent(
        {
            "id": of["id"],
            "source": "https://sdk.example.com/logins",
            "type": "foretell.login.succeeded",
            "time": datetime(2025, 3, 1, 10, tzinfo=timezone.utc),
            "datacontenttype": "application/json",
            "partner": of["partner"],
        },
        payload,
    )


def send(headers, body, ids):
    request = urllib.request.Request(f"{base}/v1/events", data=body, headers=headers, method="POST")
    try:
        answer = json.load(urllib.request.urlopen(request))
    except urllib.error.HTTPError as error:
        sys.exit(f"{ids}: {error.code} {error.read().decode()}")
    found = [position["id"] for position in answer["positions"]]
    if found != ids:
        sys.exit(f"sent {ids}, was read as {found}")


for of in given:
    for message in (
        to_binary_event(event(of, data)),
        to_structured_event(event(of, data)),
        to_structured_event(event(of, json.dumps(data).encode())),
    ):
        send(message.headers, message.body, [of["id"]])
batch = b"[" + b",".join(JSONFormat().write(event(of, data)) for of in given) + b"]"
send({"content-type": "application/cloudevents-batch+json"}, batch, [of["id"] for of in given])
