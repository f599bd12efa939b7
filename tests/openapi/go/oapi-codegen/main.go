// Does with a client that oapi-codegen made what an integration begins with. Argument: the base URL of a running
// service.
package main

import (
	"context"
	"log"
	"os"
	"time"

	foretell "foretell/openapi-test/oapi-codegen/client"
)

// ok stops at an error of the transport: a problem that the service answers is a field of the answer.
func ok[T any](answer T, err error) T {
	if err != nil {
		log.Panic(err)
	}
	return answer
}

func expect(holds bool, body []byte) {
	if !holds {
		log.Panicf("%s", body)
	}
}

func main() {
	ctx, now := context.Background(), time.Now().UTC()
	client := ok(foretell.NewClientWithResponses(os.Args[1]))

	var login, visit foretell.Event
	// Sets `type` too.
	for _, err := range []error{
		login.FromLoginSucceededEvent(foretell.LoginSucceededEvent{
			Specversion: foretell.LoginSucceededEventSpecversionN10,
			Id:          "oapi-codegen-login",
			Source:      "urn:oapi-codegen",
			Data: foretell.LoginSucceeded{
				UserId:   "oapi-codegen",
				Ip:       "198.51.100.7",
				DeviceId: new("d-1"),
				Asn:      new(int64(4_200_000_000)),
			},
		}),
		visit.FromAppointmentBookedEvent(foretell.AppointmentBookedEvent{
			Specversion: foretell.AppointmentBookedEventSpecversionN10,
			Id:          "oapi-codegen-visit",
			Source:      "urn:oapi-codegen",
			Data: foretell.AppointmentBooked{
				ClientId:      "oapi-codegen",
				AppointmentId: "oapi-codegen",
				StartsAt:      now.AddDate(0, 0, 3).Format(time.RFC3339),
				TimeZone:      new("Europe/Dublin"),
			},
		}),
	} {
		ok(struct{}{}, err)
	}
	appended := ok(client.AppendEventsWithApplicationCloudeventsBatchPlusJSONBodyWithResponse(
		ctx, &foretell.AppendEventsParams{Prefer: new("wait=20")}, foretell.EventBatch{login, visit}))
	expect(appended.JSON200 != nil && *appended.JSON200.Folded, appended.Body)

	score := ok(client.ScoreLoginWithResponse(ctx, nil, foretell.LoginRequest{
		UserId: "oapi-codegen",
		Ip:     "203.0.113.9",
		Asn:    new(int64(4_200_000_001)),
	}))
	expect(score.JSON200 != nil && score.JSON200.Decision.Valid(), score.Body)
	expect(score.JSON200.History.FirstSeen != nil && !score.JSON200.EvaluatedAt.IsZero(), score.Body)

	scored := ok(client.ScoreAppointmentWithResponse(ctx, nil, foretell.AppointmentRequest{
		ClientId: new("oapi-codegen"),
		StartsAt: new(now.AddDate(0, 0, 9).Format(time.RFC3339)),
	}))
	expect(scored.JSON200 != nil && scored.JSON200.Score >= 0 && scored.JSON200.Score <= 1, scored.Body)
	expect(scored.JSON200.Level.Valid(), scored.Body)

	user := ok(client.GetUserWithResponse(ctx, "oapi-codegen", nil))
	expect(user.JSON200 != nil && user.JSON200.History.Successes == 1, user.Body)
	expect(user.JSON200.Devices[0].KnownUntil.After(now), user.Body)

	agenda := ok(client.ListAgendaWithResponse(ctx, &foretell.ListAgendaParams{
		From:  &now,
		To:    new(now.AddDate(0, 0, 7)),
		Limit: new(int32(100)),
	}))
	expect(agenda.JSON200 != nil, agenda.Body)
	var booked []string
	for _, visit := range agenda.JSON200.Visits {
		if visit.ClientId == "oapi-codegen" {
			booked = append(booked, visit.AppointmentId)
		}
	}
	expect(len(booked) == 1 && booked[0] == "oapi-codegen", agenda.Body)

	byPhone := func() string {
		params := &foretell.RequestReminderParams{IdempotencyKey: new("oapi-codegen")}
		body := foretell.ReminderRequest{Reason: new("by phone")}
		reminder := ok(client.RequestReminderWithResponse(ctx, "oapi-codegen", params, body))
		expect(reminder.JSON202 != nil, reminder.Body)
		return reminder.JSON202.ReminderId
	}
	expect(byPhone() == byPhone(), []byte("a second reminder under one key"))
	// The body may be left out.
	params := &foretell.RequestReminderParams{IdempotencyKey: new("oapi-codegen-2")}
	reminder := ok(client.RequestReminderWithBodyWithResponse(ctx, "oapi-codegen", params, "application/json", nil))
	expect(reminder.JSON202 != nil && reminder.JSON202.ReminderId != "", reminder.Body)

	missing := ok(client.GetUserWithResponse(ctx, "nobody", nil))
	problem := missing.ApplicationproblemJSON404
	expect(problem != nil && problem.Code == foretell.USERNOTFOUND && problem.Status == 404, missing.Body)
	invalid := ok(client.ScoreLoginWithResponse(ctx, nil, foretell.LoginRequest{UserId: "oapi-codegen", Ip: "nowhere"}))
	problem = (*foretell.NotFound)(invalid.ApplicationproblemJSON422)
	expect(problem != nil && problem.Status == 422 && (*problem.Errors)[0].Pointer == "/ip", invalid.Body)
}
