package server

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a agent
		f := newFollower(a.follow)
		expect := func(when string, want map[string]int) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, a.followed()); diff != "" {
				t.Errorf("%s: followed (-want +got):\n%s", when, diff)
			}
		}
		first := f.hold([]string{"web", "api", "web"})
		second := f.hold([]string{"web"})
		expect("two clients", map[string]int{"web": 1, "api": 1})

		first()
		first()
		time.Sleep(followLinger - time.Second)
		expect("lingering", map[string]int{"web": 1, "api": 1})
		time.Sleep(time.Second)
		expect("the first is gone", map[string]int{"web": 1})

		second()
		time.Sleep(followLinger / 2)
		third := f.hold([]string{"web"}) // a client that polls
		time.Sleep(followLinger)
		expect("asked again in time", map[string]int{"web": 1})

		third()
		f.close()
		expect("closed", map[string]int{})
		f.hold([]string{"web"})()
		time.Sleep(2 * followLinger)
		expect("after the close", map[string]int{})
	})
}

// A release that comes after the close finds nothing to end a second time.
func TestFollower_releaseAfterClose(t *testing.T) {
	var a agent
	f := newFollower(a.follow)
	release := f.hold([]string{"web"})
	f.close()
	release()
	if diff := cmp.Diff(map[string]int{}, a.followed()); diff != "" {
		t.Errorf("followed (-want +got):\n%s", diff)
	}
}

func TestFollower_nobodyToTell(t *testing.T) {
	f := newFollower(nil)
	f.hold([]string{"web"})()
	f.close()
	if len(f.groups) != 0 {
		t.Errorf("got %d groups; want none without a registrar", len(f.groups))
	}
}
