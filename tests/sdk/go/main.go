// Sends events with the CloudEvents SDK for Go: binary, structured, structured with bytes, batch.
//
// The SDK does not encode header values, so its callers must (HTTP binding, 3.1.3.2), as this program does.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

type given struct{ ID, Partner string }

var data = map[string]string{"user_id": "sdk", "ip": "198.51.100.7"}

func made(of given, payload any) event.Event {
	made := event.New()
	made.SetID(of.ID)
	made.SetSource("https://sdk.example.com/logins")
	made.SetType("foretell.login.succeeded")
	made.SetTime(time.Date(2025, 3, 1, 10, 0, 0, 0, time.UTC))
	made.SetExtension("partner", of.Partner)
	must(made.SetData(event.ApplicationJSON, payload))
	return made
}

func encoded(value string) string {
	var text strings.Builder
	for _, b := range []byte(value) {
		if b > ' ' && b < 0x7f && b != '"' && b != '%' {
			text.WriteByte(b)
		} else {
			fmt.Fprintf(&text, "%%%02X", b)
		}
	}
	return text.String()
}

func send(request *http.Request, ids ...string) {
	for name, values := range request.Header {
		if strings.HasPrefix(name, "Ce-") {
			request.Header[name] = []string{encoded(values[0])}
		}
	}
	answer, err := http.DefaultClient.Do(request)
	must(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(err)
	if answer.StatusCode >= 300 {
		must(fmt.Errorf("%q: %d %s", ids, answer.StatusCode, body))
	}
	var read struct{ Positions []struct{ ID string } }
	must(json.Unmarshal(body, &read))
	var found []string
	for _, position := range read.Positions {
		found = append(found, position.ID)
	}
	if !slices.Equal(found, ids) {
		must(fmt.Errorf("sent %q, was read as %q", ids, found))
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	text, err := os.ReadFile(os.Args[2])
	must(err)
	var all []given
	must(json.Unmarshal(text, &all))
	url := os.Args[1] + "/v1/events"
	bytes, err := json.Marshal(data)
	must(err)
	var batch []event.Event
	var ids []string
	for _, of := range all {
		structured := binding.WithForceStructured(context.Background())
		for _, written := range []struct {
			mode    context.Context
			payload any
		}{{context.Background(), data}, {structured, data}, {structured, bytes}} {
			request, err := cehttp.NewHTTPRequestFromEvent(written.mode, url, made(of, written.payload))
			must(err)
			send(request, of.ID)
		}
		batch, ids = append(batch, made(of, data)), append(ids, of.ID)
	}
	request, err := cehttp.NewHTTPRequestFromEvents(context.Background(), url, batch)
	must(err)
	send(request, ids...)
}
