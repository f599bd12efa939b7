"""Does with a client that OpenAPI Generator made what drive.py does. Argument: the base URL of a running service."""

import datetime
import sys

import foretell
from foretell.exceptions import NotFoundException, UnprocessableEntityException

client = foretell.ApiClient(foretell.Configuration(host=sys.argv[1]))
events, reminders = foretell.EventsApi(client), foretell.RemindersApi(client)
risk, views = foretell.RiskApi(client), foretell.ViewsApi(client)
now = datetime.datetime.now(datetime.timezone.utc)
login = foretell.LoginSucceededEvent(
    specversion="1.0",
    id="generator-login",
    source="urn:generator",
    type="foretell.login.succeeded",
    data=foretell.LoginSucceeded(user_id="generator", ip="198.51.100.7", device_id="d-1", asn=4_200_000_000),
)
visit = foretell.AppointmentBookedEvent(
    specversion="1.0",
    id="generator-visit",
    source="urn:generator",
    type="foretell.appointment.booked",
    data=foretell.AppointmentBooked(
        client_id="generator",
        appointment_id="generator",
        starts_at=(now + datetime.timedelta(days=3)).isoformat(),
        time_zone="Europe/Dublin",
    ),
)
# Of the bodies that this operation takes the generator keeps the first: one event.
for event in (login, visit):
    appended = events.append_events(foretell.Event(event), prefer="wait=20")
    assert appended.folded is True, appended

score = risk.score_login(foretell.LoginRequest(user_id="generator", ip="203.0.113.9", asn=4_200_000_001))
assert score.decision in set(foretell.LoginDecision) and score.evaluated_at and score.history.first_seen, score

request = foretell.AppointmentRequest(
    client_id="generator", starts_at=(now + datetime.timedelta(days=9)).isoformat()
)
scored = risk.score_appointment(request)
assert 0 <= scored.score <= 1 and scored.level in set(foretell.RiskLevel), scored

user = views.get_user("generator")
assert user.history.successes == 1 and user.devices[0].known_until > now, user

agenda = views.list_agenda(var_from=now, to=now + datetime.timedelta(days=7), limit=100)
assert [visit.appointment_id for visit in agenda.visits if visit.client_id == "generator"] == ["generator"], agenda

by_phone = foretell.ReminderRequest(reason="by phone")
answers = [
    reminders.request_reminder("generator", idempotency_key="generator", reminder_request=by_phone) for _ in range(2)
]
assert answers[0].reminder_id == answers[1].reminder_id, answers
# The body may be left out.
assert reminders.request_reminder("generator", idempotency_key="generator-2").reminder_id


def problem(kind, send):
    """The problem document of a request that fails."""
    try:
        answer = send()
    except kind as failure:
        return failure.data
    raise AssertionError(answer)


missing = problem(NotFoundException, lambda: views.get_user("nobody"))
assert missing.code == foretell.ProblemCode.USER_NOT_FOUND and missing.status == 404, missing
nowhere = foretell.LoginRequest(user_id="generator", ip="nowhere")
invalid = problem(UnprocessableEntityException, lambda: risk.score_login(nowhere))
assert invalid.status == 422 and invalid.errors[0].pointer == "/ip", invalid
