package discovery

import (
	"fmt"
	"strings"

	"berth/pkg/target"
)

// The labels by which a container says which other signals tell it to stop. Watchtower sends the signal of its own label
// instead of the container's StopSignal.
// Source: https://containrrr.dev/watchtower/stop-signals/
const (
	StopSignalsLabel       = "berth.stop-signals"
	watchtowerSignalsLabel = "com.centurylinklabs.watchtower.stop-signal"
)

// maxSignals bounds the elements of a label: there are no more signals.
const maxSignals = 64

// ParseStopSignals reads the value of berth.stop-signals: signals in any spelling of Docker's, separated by commas, with
// blanks around them or not. An empty or blank value is no signal. Errors are *LabelError.
func ParseStopSignals(value string) (target.Signals, error) {
	var set target.Signals
	if strings.TrimSpace(value) == "" {
		return set, nil
	}
	if n := strings.Count(value, ","); n >= maxSignals {
		return 0, &LabelError{Rule: fmt.Sprintf("it lists %d signals, and there are %d", n+1, maxSignals)}
	}
	for element := range strings.SplitSeq(value, ",") {
		element = strings.TrimSpace(element)
		n, ok := target.ParseSignal(element)
		switch {
		case element == "":
			return 0, &LabelError{Rule: emptyElement}
		case !ok:
			return 0, &LabelError{Element: element, Rule: target.ErrSignal.Error()}
		}
		set = set.With(n)
	}
	return set, nil
}

// stops reports whether signal n tells a container to end: SIGTERM and SIGKILL do, and whatever its StopSignal is.
// Everything else is the application's own business (HUP reloads, USR1 rotates, QUIT dumps threads), unless alsoStops has it.
//
// A StopSignal that cannot be read counts as SIGTERM, which is what Docker falls back to.
func stops(n int, stopSignal string) bool {
	if n == target.SIGTERM || n == target.SIGKILL {
		return true
	}
	own, ok := target.ParseSignal(stopSignal)
	return ok && n == own
}

// alsoStops returns which other signals tell a container to end, because somebody says so: its label berth.stop-signals or,
// without it, stop_signals of every group that asks for it, or that it asks for; and Watchtower's label, because Watchtower
// goes by it. A label that cannot be read says nothing here; that of ours is refused in Resolve.
func alsoStops(f *Facts, rules []Rule) target.Signals {
	set, _ := ParseStopSignals(f.Labels[watchtowerSignalsLabel])
	if own, ok := f.Labels[StopSignalsLabel]; ok {
		also, _ := ParseStopSignals(own)
		return set | also
	}
	r := newResolver(Input{Rules: rules})
	claims, _ := r.claims(&Container{Facts: f})
	for _, c := range claims {
		set |= c.rule.StopSignals
	}
	return set
}
