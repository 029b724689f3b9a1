package cli

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/target"
)

// A question waits for a change no longer than until the judges' answer may change by time alone; nor is it asked again at
// once.
func TestWaitUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for _, tt := range []struct {
			next time.Time
			want time.Duration
		}{
			{time.Time{}, pollWait},
			{now.Add(time.Hour), pollWait},
			{now.Add(time.Second), time.Second},
			{now.Add(time.Millisecond), pollPause},
			{now.Add(-time.Second), pollPause},
		} {
			if got := waitUntil(tt.next); got != tt.want {
				t.Errorf("%v from now: %v; want %v", tt.next.Sub(now), got, tt.want)
			}
		}
	})
}

// What a person waits for who asks about 500 containers.
func BenchmarkStatusCommand_500(b *testing.B) {
	a := newShownAgent(b)
	var wants []target.Want
	var targets []registrar.TargetStatus
	for i := range 500 {
		w := testWant("web", uint16(32768+i))
		w.Run.ID, w.Run.Name = strings.Repeat("0", 61)+string([]byte{'a' + byte(i/100), '0' + byte(i/10%10), '0' + byte(i%10)}), "web-"+time.Duration(i).String()
		wants = append(wants, w)
		targets = append(targets, registered(w, "healthy", ""))
	}
	a.show(1, wants, []discovery.Decision{}, targets...)
	env := &environment{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: func(k string) string {
		return map[string]string{"BERTH_CONTROL_SOCKET": a.socket}[k]
	}}
	for b.Loop() {
		if code := execute(b.Context(), []string{"status"}, env); code != 0 {
			b.Fatalf("exit code %d", code)
		}
	}
}
