package cli

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/client"
	"berth/pkg/registrar"
	"berth/pkg/server"
	"berth/pkg/status"
	"berth/pkg/target"
	"berth/test/agenttest"
)

// An agent that falls silent is given so long, and no longer, however it does that; one that says anything is not silent, and
// one that is back in time has lost nothing.
func TestDepartures_silence(t *testing.T) {
	const silence, longest = 5 * time.Second, time.Minute
	at := func(d, from, until time.Duration) bool { return d >= from && d < until }
	hang := func(r *http.Request) { <-r.Context().Done() }
	for name, tt := range map[string]struct {
		answer func(since time.Duration, w http.ResponseWriter, r *http.Request) (spoke bool) // false: it answers with a status
		want   time.Duration                                                                  // when it counts as silent; 0: never
	}{
		"it hangs": {func(since time.Duration, _ http.ResponseWriter, r *http.Request) bool {
			if since < 10*time.Second {
				return false
			}
			hang(r)
			return true
		}, 15 * time.Second},
		"it dies": {func(since time.Duration, _ http.ResponseWriter, _ *http.Request) bool {
			if since < 10*time.Second {
				return false
			}
			panic(http.ErrAbortHandler)
		}, 15 * time.Second},
		"it is back in time": {func(since time.Duration, _ http.ResponseWriter, r *http.Request) bool {
			if !at(since, 10*time.Second, 14*time.Second) && !at(since, 20*time.Second, 24*time.Second) {
				return false
			}
			panic(http.ErrAbortHandler)
		}, 0},
		"it has many clients": {func(since time.Duration, w http.ResponseWriter, _ *http.Request) bool {
			if !at(since, 10*time.Second, 30*time.Second) {
				return false
			}
			server.WriteError(w, http.StatusServiceUnavailable, "too many clients")
			return true
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				shown := status.V1{
					API: status.APIVersion, Seq: 1, Connected: true, Groups: []status.GroupV1{{Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: 1}},
					Rows: []status.Row{{Run: target.Run{ID: "c"}, Group: "web", State: status.Draining, Target: target.Target{ID: "i", Port: 1}}},
				}
				network := agenttest.NewNetwork()
				l, err := network.Listen(t.Context(), "", "unix", "/b.sock")
				if err != nil {
					t.Fatal(err)
				}
				agent := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					since := time.Since(begun)
					if tt.answer(since, w, r) {
						return
					}
					now := shown
					if since >= 40*time.Second {
						now.Rows = nil
					}
					server.WriteJSON(w, http.StatusOK, now)
				})}
				served := make(chan error, 1)
				go func() { served <- agent.Serve(l) }()
				api := client.NewDial(network.Dial, "/b.sock", "")
				d := status.HostDeparture(status.DepartureOptions{Before: &shown, Seq: 1, Latest: begun.Add(longest)})
				env := &environment{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}
				err = (&departures{report: newReporter(env), all: []*status.Departure{d}, silence: silence}).follow(t.Context(), api)
				took := time.Since(begun)
				var silent *silentError
				switch {
				case tt.want == 0:
					if err != nil || d.Phase() != status.GonePhase {
						t.Errorf("after %v: %v, %s; want it gone", took, err, d.Phase())
					}
				case !errors.As(err, &silent) || took > tt.want || took < tt.want-pollPause:
					t.Errorf("after %v: %v; want silence noticed after %v", took, err, tt.want)
				}
				api.Close()
				_ = agent.Close()
				if err := <-served; !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			})
		})
	}
}
