// Does with a client that ogen made what an integration begins with. Argument: the base URL of a running service.
package main

import (
	"context"
	"log"
	"os"
	"time"

	foretell "foretell/openapi-test/ogen/client"
)

// key answers the API key of every operation; a service without keys reads none.
type key string

func (k key) APIKey(context.Context, foretell.OperationName) (foretell.APIKey, error) {
	return foretell.APIKey{Token: string(k)}, nil
}

// as takes the answer of one type, and stops at any other: each status of an operation has a type.
func as[T any](answer any, err error) T {
	expected, ok := answer.(T)
	if err != nil || !ok {
		log.Panicf("%T %+v: %v", answer, answer, err)
	}
	return expected
}

func expect(holds bool, answer any) {
	if !holds {
		log.Panicf("%+v", answer)
	}
}

func main() {
	ctx, now := context.Background(), time.Now().UTC()
	client, err := foretell.NewClient(os.Args[1], key(os.Getenv("FORETELL_KEY")))
	expect(err == nil, err)

	login := foretell.NewLoginSucceededEventEvent(foretell.LoginSucceededEvent{
		Specversion: foretell.LoginSucceededEventSpecversion10,
		ID:          "ogen-login",
		Source:      "urn:ogen",
		Type:        foretell.LoginSucceededEventTypeForetellLoginSucceeded,
		Data: foretell.LoginSucceeded{
			UserID:   "ogen",
			IP:       "198.51.100.7",
			DeviceID: foretell.NewOptNilString("d-1"),
			Asn:      foretell.NewOptNilInt64(4_200_000_000),
		},
	})
	visit := foretell.NewAppointmentBookedEventEvent(foretell.AppointmentBookedEvent{
		Specversion: foretell.AppointmentBookedEventSpecversion10,
		ID:          "ogen-visit",
		Source:      "urn:ogen",
		Type:        foretell.AppointmentBookedEventTypeForetellAppointmentBooked,
		Data: foretell.AppointmentBooked{
			ClientID:      "ogen",
			AppointmentID: "ogen",
			StartsAt:      now.AddDate(0, 0, 3).Format(time.RFC3339),
			TimeZone:      foretell.NewOptNilString("Europe/Dublin"),
		},
	})
	wait := foretell.AppendEventsParams{Prefer: foretell.NewOptString("wait=20")}
	appended := as[*foretell.AppendEventsOK](client.AppendEvents(ctx, &foretell.EventBatch{login, visit}, wait))
	expect(appended.Folded.Value, appended)

	attempt := &foretell.LoginRequest{UserID: "ogen", IP: "203.0.113.9", Asn: foretell.NewOptInt64(4_200_000_001)}
	score := as[*foretell.LoginAnswer](client.ScoreLogin(ctx, attempt, foretell.ScoreLoginParams{}))
	expect(score.Decision.Validate() == nil && !score.History.FirstSeen.Null && !score.EvaluatedAt.IsZero(), score)

	considered := &foretell.AppointmentRequest{
		ClientID: foretell.NewOptString("ogen"),
		StartsAt: foretell.NewOptString(now.AddDate(0, 0, 9).Format(time.RFC3339)),
	}
	scored := as[*foretell.AppointmentAnswer](
		client.ScoreAppointment(ctx, considered, foretell.ScoreAppointmentParams{}))
	expect(scored.Score >= 0 && scored.Score <= 1 && scored.Level.Validate() == nil, scored)

	user := as[*foretell.UserAnswer](client.GetUser(ctx, foretell.GetUserParams{UserID: "ogen"}))
	expect(user.History.Successes == 1 && user.Devices[0].KnownUntil.Value.After(now), user)

	agenda := as[*foretell.AgendaAnswer](client.ListAgenda(ctx, foretell.ListAgendaParams{
		From:  foretell.NewOptDateTime(now),
		To:    foretell.NewOptDateTime(now.AddDate(0, 0, 7)),
		Limit: foretell.NewOptInt32(100),
	}))
	var booked []string
	for _, visit := range agenda.Visits {
		if visit.ClientID == "ogen" {
			booked = append(booked, visit.AppointmentID)
		}
	}
	expect(len(booked) == 1 && booked[0] == "ogen", agenda)

	request := func(key string, body foretell.OptReminderRequest) string {
		params := foretell.RequestReminderParams{
			AppointmentID:  "ogen",
			IdempotencyKey: foretell.NewOptString(key),
		}
		return as[*foretell.ReminderAnswer](client.RequestReminder(ctx, body, params)).ReminderID
	}
	byPhone := foretell.NewOptReminderRequest(foretell.ReminderRequest{Reason: foretell.NewOptString("by phone")})
	expect(request("ogen", byPhone) == request("ogen", byPhone), "a second reminder under one key")
	// The body may be left out.
	expect(request("ogen-2", foretell.OptReminderRequest{}) != "", "no reminder without a body")

	missing := as[*foretell.GetUserNotFound](client.GetUser(ctx, foretell.GetUserParams{UserID: "nobody"}))
	expect(missing.Code == foretell.ProblemCodeUSERNOTFOUND && missing.Status == 404, missing)
	attempt = &foretell.LoginRequest{UserID: "ogen", IP: "nowhere"}
	invalid := as[*foretell.ScoreLoginUnprocessableEntity](
		client.ScoreLogin(ctx, attempt, foretell.ScoreLoginParams{}))
	expect(invalid.Status == 422 && invalid.Errors[0].Pointer == "/ip", invalid)
}
