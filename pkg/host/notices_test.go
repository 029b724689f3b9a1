package host

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	spotItem        = itemPath + spotPath
	lifecycleItem   = itemPath + lifecyclePath
	rebalanceItem   = itemPath + rebalancePath
	maintenanceItem = itemPath + maintenancePath
)

// in runs a test with running notices in fake time, and ends them.
func in(t *testing.T, prepare func(*rig), body func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Override{})
		prepare(r)
		r.start(t)
		body(t, r)
		r.stop()
		if err := <-r.err; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func nothing(*rig) {}

// after sleeps, lets everything settle, and compares the notices in force.
func (r *rig) after(t *testing.T, d time.Duration, want string) {
	t.Helper()
	time.Sleep(d)
	synctest.Wait()
	if got := r.kinds(); got != want {
		t.Errorf("notices %q; want %q", got, want)
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func TestNotices_spot(t *testing.T) {
	in(t, nothing, func(t *testing.T, r *rig) {
		r.after(t, time.Minute, "")
		seen := time.Now()
		deadline := seen.Add(2 * time.Minute).Truncate(time.Second)
		r.imds.set(spotItem, `{"action": "terminate", "time": "`+stamp(deadline)+`"}`)
		r.after(t, spotInterval, "spot=terminate")
		s, next := r.Snapshot()
		if n := s.Notices[0]; !n.Deadline.Equal(deadline) || n.At.Before(seen) || n.At.After(seen.Add(spotInterval)) {
			t.Errorf("notice %+v; want its deadline, and the time it was seen", n)
		}
		r.after(t, time.Minute, "spot=terminate")
		select {
		case <-next:
			t.Error("published again without a change")
		default:
		}
		// It is gone before its time: the time must pass by 10 minutes.
		r.imds.remove(spotItem)
		r.after(t, time.Until(deadline)+spotAfterlife-spotInterval, "spot=terminate")
		r.after(t, 2*spotInterval, "")
	})
}

func TestNotices_spot_ends(t *testing.T) {
	notice := func(deadline time.Duration) string {
		return `{"action": "stop", "time": "` + stamp(time.Now().Add(deadline)) + `"}`
	}
	for name, tt := range map[string]struct {
		deadline time.Duration // from the notice
		present  time.Duration // how long the notice is there
		holds    time.Duration // how long after it is gone it is in force
	}{
		"gone before its time":     {2 * time.Minute, time.Minute, 11 * time.Minute},
		"gone long after its time": {2 * time.Minute, 30 * time.Minute, 10 * time.Minute},
		"the clock is wrong":       {100 * time.Hour, time.Minute, 20 * time.Minute},
		"the clock is wrong, past": {-100 * time.Hour, time.Minute, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, nothing, func(t *testing.T, r *rig) {
				r.imds.set(spotItem, notice(tt.deadline))
				r.after(t, tt.present, "spot=stop")
				r.imds.remove(spotItem)
				r.after(t, tt.holds-2*spotInterval, "spot=stop")
				r.after(t, 4*spotInterval, "")
				r.imds.set(spotItem, notice(0)) // and it can come again
				r.after(t, 2*spotInterval, "spot=stop")
			})
		})
	}
	t.Run("comes back meanwhile", func(t *testing.T) {
		in(t, nothing, func(t *testing.T, r *rig) {
			r.imds.set(spotItem, notice(0))
			r.after(t, time.Minute, "spot=stop")
			r.imds.remove(spotItem)
			r.after(t, 9*time.Minute, "spot=stop")
			r.imds.set(spotItem, notice(0))
			r.after(t, time.Minute, "spot=stop")
			r.imds.remove(spotItem)
			r.after(t, 9*time.Minute, "spot=stop")
			r.after(t, 2*time.Minute, "")
		})
	})
}

func TestNotices_lifecycle(t *testing.T) {
	for _, state := range []string{"Terminated", "Detached", "Standby", "Warmed:Hibernated", "Warmed:Running", "Warmed:Stopped", "Warmed:Terminated"} {
		t.Run(state, func(t *testing.T) {
			in(t, nothing, func(t *testing.T, r *rig) {
				r.imds.set(lifecycleItem, state)
				r.after(t, eventInterval, "lifecycle="+state)
				r.imds.set(lifecycleItem, "InService\n")
				r.after(t, eventInterval, "")
				r.imds.set(lifecycleItem, state)
				r.after(t, eventInterval, "lifecycle="+state)
				r.imds.remove(lifecycleItem)
				r.after(t, eventInterval, "")
			})
		})
	}
}

// The state is known before anything may be registered, and 404 is one of its answers.
func TestNotices_lifecycleKnown(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(*rig)
		at      time.Duration
		kinds   string
	}{
		"in service":         {func(r *rig) { r.imds.set(lifecycleItem, "InService") }, 0, ""},
		"never in a group":   {nothing, 0, ""},
		"warming up":         {func(r *rig) { r.imds.set(lifecycleItem, "Warmed:Stopped") }, 0, "lifecycle=Warmed:Stopped"},
		"cannot be read":     {func(r *rig) { r.imds.fail[lifecycleItem] = 500 }, lifecyclePatience, ""},
		"not understood":     {func(r *rig) { r.imds.set(lifecycleItem, "Melting") }, lifecyclePatience, ""},
		"the host is silent": {func(r *rig) { r.imds.slow(time.Hour) }, lifecyclePatience + requestTimeout, ""},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, tt.prepare, func(t *testing.T, r *rig) {
				start := time.Now()
				for {
					s, next := r.Snapshot()
					if s.LifecycleKnown {
						break
					}
					<-next
				}
				if d := time.Since(start); d > tt.at || d < tt.at-requestTimeout-lifecycleRetry {
					t.Errorf("known after %s; want %s", d, tt.at)
				}
				if got := r.kinds(); got != tt.kinds {
					t.Errorf("notices %q; want %q together with it", got, tt.kinds)
				}
			})
		})
	}
	t.Run("at the second try", func(t *testing.T) {
		in(t, func(r *rig) { r.imds.fail[lifecycleItem] = 500 }, func(t *testing.T, r *rig) {
			time.Sleep(lifecycleRetry / 2)
			r.imds.recover()
			r.imds.set(lifecycleItem, "Standby")
			r.after(t, lifecycleRetry, "lifecycle=Standby")
			if s, _ := r.Snapshot(); !s.LifecycleKnown {
				t.Error("not known")
			}
		})
	})
}

func TestNotices_rebalance(t *testing.T) {
	in(t, nothing, func(t *testing.T, r *rig) {
		r.imds.set(rebalanceItem, `{"noticeTime": "2026-10-27T08:22:00Z"}`)
		r.after(t, eventInterval, "rebalance=")
		s, _ := r.Snapshot()
		if want := time.Date(2026, 10, 27, 8, 22, 0, 0, time.UTC); !s.Notices[0].At.Equal(want) {
			t.Errorf("at %s; want %s", s.Notices[0].At, want)
		}
		r.imds.remove(rebalanceItem)
		r.after(t, eventInterval, "")
	})
}

func TestNotices_maintenance(t *testing.T) {
	in(t, nothing, func(t *testing.T, r *rig) {
		event := func(code, state, before string) string {
			return `{"Code":"` + code + `","State":"` + state + `","NotBefore":"` + before + `","NotAfter":"21 Jan 2027 09:17:23 GMT","Description":"scheduled reboot","EventId":"instance-event-0d59937288b749b32"}`
		}
		r.imds.set(maintenanceItem, "["+event("system-reboot", "active", "21 Jan 2027 09:00:43 GMT")+","+
			event("instance-stop", "completed", "1 Jan 2027 09:00:43 GMT")+","+event("instance-retirement", "canceled", "")+","+
			event("instance-retirement", "active", "soon")+"]")
		r.after(t, eventInterval, "maintenance=system-reboot maintenance=instance-retirement")
		s, _ := r.Snapshot()
		want := []time.Time{time.Date(2027, 1, 21, 9, 0, 43, 0, time.UTC), {}}
		if diff := cmp.Diff(want, []time.Time{s.Notices[0].Deadline, s.Notices[1].Deadline}); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		r.imds.set(maintenanceItem, "[]")
		r.after(t, eventInterval, "")
	})
}

// A notice keeps the time at which it was first seen when another comes beside it, and a snapshot that somebody holds
// stays as it is.
func TestNotices_firstSeen(t *testing.T) {
	in(t, nothing, func(t *testing.T, r *rig) {
		r.imds.set(maintenanceItem, `[{"Code":"instance-stop","State":"active"}]`)
		r.after(t, eventInterval, "maintenance=instance-stop")
		first, next := r.Snapshot()
		r.imds.set(maintenanceItem, `[{"Code":"system-reboot","State":"active"},{"Code":"instance-stop","State":"active"}]`)
		r.after(t, time.Hour, "maintenance=system-reboot maintenance=instance-stop")
		<-next
		s, _ := r.Snapshot()
		if at := s.Notices[1].At; !at.Equal(first.Notices[0].At) || !s.Notices[0].At.After(at) {
			t.Errorf("first seen at %s and %s; before, the second alone was at %s", s.Notices[0].At, at, first.Notices[0].At)
		}
		r.imds.set(maintenanceItem, "[]")
		r.after(t, eventInterval, "")
		if len(first.Notices) != 1 || first.Notices[0].Action != "instance-stop" || len(s.Notices) != 2 {
			t.Errorf("snapshots changed under their holders: %+v, %+v", first.Notices, s.Notices)
		}
	})
}

// A question that is cut off by the end says nothing about the service.
func TestNotices_stopIsNoTrouble(t *testing.T) {
	in(t, func(r *rig) { r.imds.slow(requestTimeout - time.Millisecond) }, func(t *testing.T, r *rig) {
		time.Sleep(time.Second)
		r.stop()
		synctest.Wait()
		if s, _ := r.Snapshot(); s.Waiting != "" || s.LifecycleKnown || len(r.messages()) != 0 {
			t.Errorf("%+v; logged %v", s, r.messages())
		}
	})
}

// All at once stand in a fixed order, and each ends by itself.
func TestNotices_together(t *testing.T) {
	in(t, nothing, func(t *testing.T, r *rig) {
		r.imds.set(maintenanceItem, `[{"Code":"instance-stop","State":"active"}]`)
		r.after(t, eventInterval, "maintenance=instance-stop")
		r.imds.set(rebalanceItem, `{}`)
		r.after(t, eventInterval, "rebalance= maintenance=instance-stop")
		r.imds.set(lifecycleItem, "Terminated")
		r.imds.set(spotItem, `{"action":"hibernate"}`)
		r.after(t, eventInterval, "spot=hibernate lifecycle=Terminated rebalance= maintenance=instance-stop")
		r.imds.remove(rebalanceItem)
		r.after(t, eventInterval, "spot=hibernate lifecycle=Terminated maintenance=instance-stop")
		r.imds.set(lifecycleItem, "InService")
		r.after(t, eventInterval, "spot=hibernate maintenance=instance-stop")
	})
}

// Whatever fails, and however long, changes nothing: not what is in force, and not what is not.
func TestNotices_failuresChangeNothing(t *testing.T) {
	all := []string{spotItem, lifecycleItem, rebalanceItem, maintenanceItem}
	const inForce = "spot=terminate lifecycle=Standby rebalance= maintenance=system-reboot"
	give := func(r *rig) {
		r.imds.set(spotItem, `{"action":"terminate"}`)
		r.imds.set(lifecycleItem, "Standby")
		r.imds.set(rebalanceItem, `{}`)
		r.imds.set(maintenanceItem, `[{"Code":"system-reboot","State":"active"}]`)
	}
	failures := map[string]func(*rig){
		"no connection": func(r *rig) { r.imds.failAll(0) },
		"500":           func(r *rig) { r.imds.failAll(500) },
		"403":           func(r *rig) { r.imds.failAll(403) },
		"401":           func(r *rig) { r.imds.failAll(401) },
		"token gone":    func(r *rig) { r.imds.do(func() { r.imds.fail["/latest/api/token"] = 404; r.imds.valid = "another" }) },
		"slow":          func(r *rig) { r.imds.slow(time.Hour) },
		"nonsense": func(r *rig) {
			for _, path := range all {
				r.imds.set(path, "<html>")
			}
		},
		"empty": func(r *rig) {
			for _, path := range all {
				r.imds.set(path, "")
			}
		},
		"other JSON": func(r *rig) {
			r.imds.set(spotItem, `{}`)
			r.imds.set(rebalanceItem, `[]`)
			r.imds.set(lifecycleItem, `Warmed:`)
			r.imds.set(maintenanceItem, `{}`)
		},
	}
	for name, fail := range failures {
		t.Run(name, func(t *testing.T) {
			in(t, give, func(t *testing.T, r *rig) {
				r.after(t, 2*eventInterval, inForce)
				if _, err := r.Identity(t.Context()); err != nil {
					t.Fatal(err)
				}
				fail(r)
				r.after(t, 10*time.Minute, inForce)
				if s, _ := r.Snapshot(); s.Waiting == "" {
					t.Error("nothing says that it fails")
				}
				r.imds.recover()
				r.imds.do(func() {
					r.imds.delay, r.imds.valid = 0, ""
					for _, path := range all {
						delete(r.imds.items, path)
					}
				})
				r.after(t, spotAfterlife+time.Minute, "")
				if s, _ := r.Snapshot(); s.Waiting != "" {
					t.Errorf("still waiting: %s", s.Waiting)
				}
				for message, n := range r.messages() {
					if strings.Contains(message, "metadata service") && n != 1 {
						t.Errorf("%q was logged %d times", message, n)
					}
				}
			})
			in(t, nothing, func(t *testing.T, r *rig) {
				r.after(t, 2*eventInterval, "")
				fail(r)
				r.after(t, time.Minute, "")
			})
		})
	}
}

// A question about events that hangs does not delay the one about spot.
func TestNotices_spotIsNotHeldUp(t *testing.T) {
	in(t, nothing, func(t *testing.T, r *rig) {
		r.after(t, time.Minute, "")
		before := r.imds.count(spotItem)
		r.imds.slow(1500 * time.Millisecond) // each answer
		time.Sleep(time.Minute)
		if n := r.imds.count(spotItem) - before; n < 28 {
			t.Errorf("%d questions about spot in a minute of slow answers", n)
		}
	})
}

// What an idle host asks in an hour: spot every 2 s, three others every 5 s, and a token every 5 minutes each.
func TestNotices_idle(t *testing.T) {
	in(t, nothing, func(t *testing.T, r *rig) {
		_, next := r.Snapshot()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := r.imds.count(spotItem); n < 1799 || n > 1801 {
			t.Errorf("%d questions about spot", n)
		}
		for _, path := range []string{lifecycleItem, rebalanceItem, maintenanceItem} {
			if n := r.imds.count(path); n < 719 || n > 721 {
				t.Errorf("%d questions about %s", n, path)
			}
		}
		if r.imds.tokens > 26 {
			t.Errorf("%d tokens", r.imds.tokens)
		}
		select {
		case <-next: // LifecycleKnown, if that was not known before the first look
		default:
		}
		if _, next = r.Snapshot(); len(r.messages()) != 0 {
			t.Errorf("a steady state logs %v", r.messages())
		}
		select {
		case <-next:
			t.Error("a steady state publishes")
		default:
		}
	})
}
