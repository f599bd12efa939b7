import com.fasterxml.jackson.core.JsonProcessingException;
import foretell.ApiClient;
import foretell.ApiException;
import foretell.api.EventsApi;
import foretell.api.RemindersApi;
import foretell.api.RiskApi;
import foretell.api.ViewsApi;
import foretell.model.AgendaVisit;
import foretell.model.AppointmentBooked;
import foretell.model.AppointmentBookedEvent;
import foretell.model.AppointmentRequest;
import foretell.model.Event;
import foretell.model.LoginRequest;
import foretell.model.LoginSucceeded;
import foretell.model.LoginSucceededEvent;
import foretell.model.Problem;
import foretell.model.ProblemCode;
import foretell.model.ReminderRequest;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.List;

/**
 * Does with a client that OpenAPI Generator made what an integration begins with. Argument: the base URL of a running
 * service.
 */
public final class Drive {
  /** A request that fails. */
  private interface Request {
    void send() throws ApiException;
  }

  /** The problem document of a request that fails: the client throws it as text. */
  private static Problem problem(ApiClient client, Request request) throws JsonProcessingException {
    try {
      request.send();
    } catch (ApiException failure) {
      return client.getObjectMapper().readValue(failure.getResponseBody(), Problem.class);
    }
    throw new AssertionError("a problem was expected");
  }

  private static void expect(boolean holds, Object answer) {
    if (!holds) {
      throw new AssertionError(answer);
    }
  }

  public static void main(String[] arguments) throws ApiException, JsonProcessingException {
    ApiClient client = new ApiClient();
    client.updateBaseUri(arguments[0]);
    RiskApi risk = new RiskApi(client);
    ViewsApi views = new ViewsApi(client);
    RemindersApi reminders = new RemindersApi(client);
    OffsetDateTime now = OffsetDateTime.now(ZoneOffset.UTC);

    LoginSucceededEvent login =
        new LoginSucceededEvent()
            .specversion(LoginSucceededEvent.SpecversionEnum._1_0)
            .id("java-login")
            .source("urn:java")
            .type(LoginSucceededEvent.TypeEnum.FORETELL_LOGIN_SUCCEEDED)
            .data(new LoginSucceeded().userId("java").ip("198.51.100.7").deviceId("d-1").asn(4_200_000_000L));
    AppointmentBookedEvent visit =
        new AppointmentBookedEvent()
            .specversion(AppointmentBookedEvent.SpecversionEnum._1_0)
            .id("java-visit")
            .source("urn:java")
            .type(AppointmentBookedEvent.TypeEnum.FORETELL_APPOINTMENT_BOOKED)
            .data(
                new AppointmentBooked()
                    .clientId("java")
                    .appointmentId("java")
                    .startsAt(now.plusDays(3).toString())
                    .timeZone("Europe/Dublin"));
    // Of the bodies that this operation takes the generator keeps the first: one event.
    for (Event event : List.of(new Event(login), new Event(visit))) {
      var appended = new EventsApi(client).appendEvents(event, null, "wait=20", null);
      expect(appended.getFolded(), appended);
    }

    var score = risk.scoreLogin(new LoginRequest().userId("java").ip("203.0.113.9").asn(4_200_000_001L), null);
    expect(score.getDecision() != null && score.getEvaluatedAt() != null, score);
    expect(score.getHistory().getFirstSeen() != null, score);

    var considered = new AppointmentRequest().clientId("java").startsAt(now.plusDays(9).toString());
    var scored = risk.scoreAppointment(considered, null);
    expect(scored.getScore() >= 0 && scored.getScore() <= 1 && scored.getLevel() != null, scored);

    var user = views.getUser("java", null);
    expect(user.getHistory().getSuccesses() == 1, user);
    expect(user.getDevices().get(0).getKnownUntil().isAfter(now), user);

    var agenda = views.listAgenda(now, now.plusDays(7), null, null, 100, null, null);
    var visits =
        agenda.getVisits().stream()
            .filter(booked -> booked.getClientId().equals("java"))
            .map(AgendaVisit::getAppointmentId)
            .toList();
    expect(visits.equals(List.of("java")), agenda);

    var byPhone = new ReminderRequest().reason("by phone");
    var first = reminders.requestReminder("java", null, "java", byPhone);
    var second = reminders.requestReminder("java", null, "java", byPhone);
    expect(first.getReminderId().equals(second.getReminderId()), second);
    // The body may be left out, but this client sends `null` then: an empty one means the same.
    expect(reminders.requestReminder("java", null, "java-2", new ReminderRequest()).getReminderId() != null, "none");

    var missing = problem(client, () -> views.getUser("nobody", null));
    expect(missing.getCode() == ProblemCode.USER_NOT_FOUND && missing.getStatus() == 404, missing);
    var nowhere = new LoginRequest().userId("java").ip("nowhere");
    var invalid = problem(client, () -> risk.scoreLogin(nowhere, null));
    expect(invalid.getStatus() == 422 && invalid.getErrors().get(0).getPointer().equals("/ip"), invalid);
  }
}
