package contract

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// hasDrains waits until drains.json holds these, by id, and returns it: with fixed times, the boot id of nobody, and
// drained by nobody in particular.
func (w *world) hasDrains(ids ...string) string {
	w.t.Helper()
	var file string
	w.eventually(fmt.Sprintf("drains.json has %q", ids), func() bool {
		b, err := os.ReadFile(w.path("state/drains.json"))
		file = string(b)
		if err != nil || strings.Count(file, `"id": "`) != len(ids) {
			return false
		}
		for _, id := range ids {
			if !strings.Contains(file, `"id": "`+id+`"`) {
				return false
			}
		}
		return true
	})
	file = strings.ReplaceAll(file, bootID(w.t), nobodysBoot)
	file = regexp.MustCompile(`("by": )"[^"]+"`).ReplaceAllString(file, `$1"ann"`)
	return eachTime(file, func(n int) string { return fmt.Sprintf("2001-02-03T05:%02d:00.123456789Z", n) })
}

// What the agent writes of drains of each kind that outlives it, what it reads of that as another agent of the same boot,
// and what it writes then.
func TestDrains(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web, slow := w.engine.run("web-1", "web", 32768), w.engine.run("slow-1", "slow", 32769)
	keep, run := "operator/name:web-1", "operator/"+slow.id+"/run"
	t.Run("written", func(t *testing.T) {
		w.t = t
		w.up()
		w.must(0, "drain", "--reason", "a look inside", "web-1")
		w.asked(201, "POST", "/v1/drains", `{"container":"slow-1","hold":"run"}`)
		w.asked(201, "POST", "/v1/drains", `{"host":true,"cause":"shutdown","reason":"the host shuts down"}`)
		w.must(0, "drain", "--all")
		golden(t, "drains/drains.json", w.hasDrains(keep, run, "shutdown/host", "operator/host"))
		w.down()
		info, err := os.Stat(w.path("state/drains.json"))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().String(); got != "-rw-------" {
			t.Errorf("mode: got %s; want -rw-------", got)
		}
	})
	t.Run("read", func(t *testing.T) {
		w.t = t
		file := string(goldenFile(t, "drains/drains.json"))
		w.write("state/drains.json", strings.ReplaceAll(file, nobodysBoot, bootID(t)))
		w.up()
		golden(t, "drains/read.json", pretty(t, member(t, w.follow(), "drains")))
		w.must(0, "undrain", "web-1")
		golden(t, "drains/after.json", w.hasDrains(run, "shutdown/host", "operator/host"))
		w.must(0, "undrain", "--all")
		golden(t, "drains/one.json", w.hasDrains(run))
		w.down()
	})
	// An agent that knew no names held containers. What it has left holds them, and ends by their names as well.
	t.Run("read of before", func(t *testing.T) {
		w.t = t
		file := string(goldenFile(t, "drains/before_names.json"))
		w.write("state/drains.json", strings.ReplaceAll(file, nobodysBoot, bootID(t)))
		w.up()
		w.hasDrains("operator/"+web.id, run, "shutdown/host", "operator/host")
		w.must(0, "undrain", "web-1")
		w.must(0, "undrain", "--all")
		w.hasDrains(run)
		w.down()
	})
}
