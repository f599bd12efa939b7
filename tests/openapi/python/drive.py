"""Performs the first tasks of an integration with a generated Python client. Argument: the base URL of a service."""

import datetime
import sys

from foretell_client import Client
from foretell_client.api.reminders import request_reminder
from foretell_client.api.risk import score_appointment, score_login
from foretell_client.api.views import get_user, list_agenda
from foretell_client.models import (
    AppendAnswer,
    AppointmentBooked,
    AppointmentBookedEvent,
    AppointmentBookedEventSpecversion,
    AppointmentBookedEventType,
    AppointmentRequest,
    LoginDecision,
    LoginRequest,
    LoginSucceeded,
    LoginSucceededEvent,
    LoginSucceededEventSpecversion,
    LoginSucceededEventType,
    Problem,
    ProblemCode,
    ReminderRequest,
    RiskLevel,
)

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
now = datetime.datetime.now(datetime.timezone.utc)
login = LoginSucceededEvent(
    specversion=LoginSucceededEventSpecversion.VALUE_0,
    id="python-login",
    source="urn:python",
    type_=LoginSucceededEventType.FORETELL_LOGIN_SUCCEEDED,
    data=LoginSucceeded(user_id="python", ip="198.51.100.7", device_id="d-1", asn=4_200_000_000),
)
visit = AppointmentBookedEvent(
    specversion=AppointmentBookedEventSpecversion.VALUE_0,
    id="python-visit",
    source="urn:python",
    type_=AppointmentBookedEventType.FORETELL_APPOINTMENT_BOOKED,
    data=AppointmentBooked(
        client_id="python",
        appointment_id="python",
        starts_at=(now + datetime.timedelta(days=3)).isoformat(),
        time_zone="Europe/Dublin",
    ),
)
# The generated code recognises a list of events by `isinstance(body, list[Event])`, which Python rejects. So events are
# sent with the client's HTTP client, or with the CloudEvents SDK.
headers = {"Content-Type": "application/cloudevents+json", "Prefer": "wait=20"}
for event in (login, visit):
    answered = client.get_httpx_client().post("/v1/events", json=event.to_dict(), headers=headers)
    assert AppendAnswer.from_dict(answered.json()).folded is True, answered.text

score = score_login.sync(client=client, body=LoginRequest(user_id="python", ip="203.0.113.9", asn=4_200_000_001))
assert score.decision in set(LoginDecision) and isinstance(score.evaluated_at, datetime.datetime), score
assert isinstance(score.history.first_seen, datetime.datetime), score

request = AppointmentRequest(client_id="python", starts_at=(now + datetime.timedelta(days=9)).isoformat())
scored = score_appointment.sync(client=client, body=request)
assert 0 <= scored.score <= 1 and scored.level in set(RiskLevel), scored

user = get_user.sync("python", client=client)
assert user.history.successes == 1 and user.devices[0].known_until > now, user

agenda = list_agenda.sync(client=client, from_=now, to=now + datetime.timedelta(days=7), limit=100)
assert [visit.appointment_id for visit in agenda.visits if visit.client_id == "python"] == ["python"], agenda

reminders = [
    request_reminder.sync("python", client=client, body=ReminderRequest(reason="by phone"), idempotency_key="python")
    for _ in range(2)
]
assert reminders[0].reminder_id == reminders[1].reminder_id, reminders
# The body is optional.
assert request_reminder.sync("python", client=client, idempotency_key="python-2").reminder_id

missing = get_user.sync("nobody", client=client)
assert isinstance(missing, Problem) and missing.code == ProblemCode.USER_NOT_FOUND and missing.status == 404, missing
invalid = score_login.sync(client=client, body=LoginRequest(user_id="python", ip="nowhere"))
assert invalid.status == 422 and invalid.errors[0].pointer == "/ip", invalid
