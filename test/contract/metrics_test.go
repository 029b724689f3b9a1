package contract

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"berth/pkg/target"
)

var (
	seriesPattern = regexp.MustCompile(`^([a-z_]+)(\{.*\})? [^ ]+$`)
	buildLabels   = regexp.MustCompile(`(goversion|revision|version)="[^"]*"`)
	runtimeSeries = regexp.MustCompile(`^(# (HELP|TYPE) )?(go|process|promhttp)_`)
)

// scrape returns the exposition without values. The toolchain's own metrics (go_, process_) are its matter; that they are
// there is not.
func (w *world) scrape() string {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://"+w.ip+":9797/metrics", http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	exposition, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	var b strings.Builder
	runtime := map[string]bool{}
	for line := range strings.Lines(string(exposition)) {
		line = strings.TrimSuffix(line, "\n")
		if m := runtimeSeries.FindStringSubmatch(line); m != nil {
			runtime[m[3]] = true
			continue
		}
		if !strings.HasPrefix(line, "#") {
			m := seriesPattern.FindStringSubmatch(line)
			if m == nil {
				w.t.Fatalf("no series: %s", line)
			}
			line = m[1] + buildLabels.ReplaceAllString(m[2], `$1="<BUILD>"`)
		}
		b.WriteString(line + "\n")
	}
	for _, prefix := range []string{"go", "process"} {
		if !runtime[prefix] {
			w.t.Errorf("no %s_ metrics", prefix)
		}
	}
	return b.String()
}

// Every family of /metrics with its help and type, and its series with their labels, for a host on which targets are
// registered, refused, drained and unclaimed.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.engine.run("web-1", "web", 32768)
	w.engine.run("web-2", "web:9090", 32769)
	w.engine.run("slow-1", "slow", 32770)
	w.engine.run("lone", "", 32771)
	w.foreign("web", 9)
	w.up()
	w.must(0, "wait", "--for", "registered", "web-1", "slow-1")
	w.must(0, "drain", "slow-1")
	w.must(0, "stop", "lone")
	w.must(0, "wait", "--for", "drained", "lone")
	golden(t, "metrics.txt", w.scrape())
}

// The one family without series until somebody else removes a target, which it takes some 20 s to be sure of.
func TestMetrics_repaired(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until the agent is sure that a target is gone")
	}
	t.Parallel()
	w := newWorld(t)
	w.engine.run("web-1", "web", 32768)
	w.up()
	w.must(0, "wait", "web-1")
	if err := w.sim.Deregister("web", target.Target{ID: "i-0123456789abcdef0", Port: 32768}); err != nil {
		t.Fatal(err)
	}
	w.eventually("web-1 is registered again", func() bool {
		w.follow()
		return len(w.sim.Registered("web")) == 1
	})
	var family strings.Builder
	w.eventually("the repair is counted", func() bool {
		family.Reset()
		for line := range strings.Lines(w.scrape()) {
			if strings.Contains(line, "berth_targets_repaired_total") {
				family.WriteString(line)
			}
		}
		return family.Len() > 0
	})
	golden(t, "metrics_repaired.txt", family.String())
}
