package host

import (
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
)

// A metadata service that answers every other time is one trouble: the log has when that began, and when it was over.
func TestNotices_flapping(t *testing.T) {
	in(t, nothing, func(t *testing.T, r *rig) {
		go func() { _, _ = r.Identity(t.Context()) }()
		r.after(t, time.Minute, "")
		for range 900 { // an hour
			r.imds.do(func() { r.imds.fail[spotItem] = 500 })
			time.Sleep(spotInterval)
			r.imds.recover()
			time.Sleep(spotInterval)
		}
		if n := r.logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 2 {
			t.Errorf("%d warnings in an hour; want one of the first time, and one that it comes and goes", n)
		}
		back := r.logs.FilterMessage("the instance metadata service answers again")
		if n := back.Len(); n != 1 {
			t.Errorf("%d times that it answers again; want the first", n)
		}
		time.Sleep(2 * calmFor)
		back = r.logs.FilterMessage("the instance metadata service answers again")
		if back.Len() != 2 {
			t.Fatalf("%d times that it answers again; want 2", back.Len())
		}
		if after, _ := back.All()[1].ContextMap()["after"].(time.Duration); after < 59*time.Minute || after > time.Hour+time.Minute {
			t.Errorf("it answers again after %v; want the hour", after)
		}
		r.imds.do(func() { r.imds.fail[spotItem] = 500 })
		time.Sleep(time.Minute)
		if n := r.logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 3 {
			t.Errorf("%d warnings after the next trouble; want 3", n)
		}
	})
}
