// Does with a client that OpenAPI Generator made what an integration begins with. Argument: the base URL of a running
// service.
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"time"

	foretell "foretell/openapi-test/openapi-generator/client"
)

// ok stops at an error, and shows what the service answered.
func ok[T any](answer *T, _ *http.Response, err error) *T {
	if failure := (*foretell.GenericOpenAPIError)(nil); errors.As(err, &failure) {
		log.Panicf("%v: %s", err, failure.Body())
	}
	expect(err == nil, err)
	return answer
}

// problem takes the problem document of a request that failed.
func problem[T any](answer *T, _ *http.Response, err error) foretell.Problem {
	failure := (*foretell.GenericOpenAPIError)(nil)
	expect(errors.As(err, &failure), answer)
	document, isProblem := failure.Model().(foretell.Problem)
	expect(isProblem, failure.Body())
	return document
}

func expect(holds bool, answer any) {
	if !holds {
		log.Panicf("%+v", answer)
	}
}

func main() {
	ctx, now := context.Background(), time.Now().UTC()
	configuration := foretell.NewConfiguration()
	configuration.Servers = foretell.ServerConfigurations{{URL: os.Args[1]}}
	client := foretell.NewAPIClient(configuration)

	seen := foretell.NewLoginSucceeded("go", "198.51.100.7")
	seen.SetDeviceId("d-1")
	seen.SetAsn(4_200_000_000)
	login := foretell.NewLoginSucceededEvent("1.0", "go-login", "urn:go", "foretell.login.succeeded", *seen)
	booked := foretell.NewAppointmentBooked("go", "go", now.AddDate(0, 0, 3).Format(time.RFC3339))
	booked.SetTimeZone("Europe/Dublin")
	visit := foretell.NewAppointmentBookedEvent("1.0", "go-visit", "urn:go", "foretell.appointment.booked", *booked)
	// Of the bodies that this operation takes the generator keeps the first: one event.
	for _, event := range []foretell.Event{
		foretell.LoginSucceededEventAsEvent(login),
		foretell.AppointmentBookedEventAsEvent(visit),
	} {
		appended := ok(client.EventsAPI.AppendEvents(ctx).Event(event).Prefer("wait=20").Execute())
		expect(appended.GetFolded(), appended)
	}

	attempt := foretell.NewLoginRequest("203.0.113.9", "go")
	attempt.SetAsn(4_200_000_001)
	score := ok(client.RiskAPI.ScoreLogin(ctx).LoginRequest(*attempt).Execute())
	expect(score.Decision.IsValid() && score.History.FirstSeen.Get() != nil && !score.EvaluatedAt.IsZero(), score)

	considered := foretell.NewAppointmentRequest()
	considered.SetClientId("go")
	considered.SetStartsAt(now.AddDate(0, 0, 9).Format(time.RFC3339))
	scored := ok(client.RiskAPI.ScoreAppointment(ctx).AppointmentRequest(*considered).Execute())
	expect(scored.Score >= 0 && scored.Score <= 1 && scored.Level.IsValid(), scored)

	user := ok(client.ViewsAPI.GetUser(ctx, "go").Execute())
	expect(user.History.Successes == 1 && user.Devices[0].KnownUntil.Get().After(now), user)

	agenda := ok(client.ViewsAPI.ListAgenda(ctx).From(now).To(now.AddDate(0, 0, 7)).Limit(100).Execute())
	var visits []string
	for _, visit := range agenda.Visits {
		if visit.ClientId == "go" {
			visits = append(visits, visit.AppointmentId)
		}
	}
	expect(len(visits) == 1 && visits[0] == "go", agenda)

	byPhone := foretell.NewReminderRequest()
	byPhone.SetReason("by phone")
	request := func() string {
		reminder := client.RemindersAPI.RequestReminder(ctx, "go").IdempotencyKey("go").ReminderRequest(*byPhone)
		return ok(reminder.Execute()).ReminderId
	}
	expect(request() == request(), "a second reminder under one key")
	// The body may be left out, but this client sends `null` then: an empty one means the same.
	empty := client.RemindersAPI.RequestReminder(ctx, "go").IdempotencyKey("go-2").ReminderRequest(foretell.ReminderRequest{})
	expect(ok(empty.Execute()).ReminderId != "", "no reminder with an empty body")

	missing := problem(client.ViewsAPI.GetUser(ctx, "nobody").Execute())
	expect(missing.Code == foretell.PROBLEMCODE_USER_NOT_FOUND && missing.Status == 404, missing)
	attempt = foretell.NewLoginRequest("nowhere", "go")
	invalid := problem(client.RiskAPI.ScoreLogin(ctx).LoginRequest(*attempt).Execute())
	expect(invalid.Status == 422 && invalid.Errors[0].Pointer == "/ip", invalid)
}
