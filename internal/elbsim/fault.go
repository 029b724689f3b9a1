package elbsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/elbsim/wire"
)

// FaultKind is what a fault does.
type FaultKind string

// The kinds of fault.
const (
	FaultError    FaultKind = "error"    // replies with Code, Status and Message; no effect
	FaultLatency  FaultKind = "latency"  // the call takes Delay longer
	FaultReset    FaultKind = "reset"    // resets the connection; no effect
	FaultHang     FaultKind = "hang"     // never replies; no effect
	FaultLost     FaultKind = "lost"     // takes effect, then never replies (or resets, with Reset)
	FaultLate     FaultKind = "late"     // never replies, takes effect Delay after the call arrived
	FaultTruncate FaultKind = "truncate" // takes effect, replies with half of the XML
	FaultEmpty    FaultKind = "empty"    // replies with success and nothing else, as a proxy may; no effect
)

// Fault is something that goes wrong on demand. It strikes calls that match all of its conditions. Latencies add up;
// of the others the oldest that matches decides.
type Fault struct {
	ID   string    `json:"id"` // given by AddFault
	Kind FaultKind `json:"kind"`

	// Action is a pattern like RegisterTargets or Describe*, or IMDS. Empty: every API call, but not IMDS.
	Action string `json:"action,omitempty"`
	// TargetGroup is a name or ARN. Empty: any.
	TargetGroup string `json:"target_group,omitempty"`
	// Instance is a target id that the call must name. Empty: any.
	Instance string `json:"instance,omitempty"`
	// Path is a pattern of IMDS paths like /latest/meta-data/spot/*. Empty: any.
	Path string `json:"path,omitempty"`
	// Share is how many of the calls that match are struck, 0 to 1. 0: all.
	Share float64 `json:"share,omitempty"`
	// Skip is how many calls that match are let through first.
	Skip int `json:"skip,omitempty"`
	// Times is how many calls are struck before the fault ends. 0: no end.
	Times int `json:"times,omitempty"`

	Code    string   `json:"code,omitempty"`    // error: InternalFailure
	Status  int      `json:"status,omitempty"`  // error: 400, or 500 and 503 for the codes that have it; for IMDS 500
	Message string   `json:"message,omitempty"` // error
	Delay   Duration `json:"delay,omitempty"`   // latency, late
	Reset   bool     `json:"reset,omitempty"`   // lost: resets the connection instead of hanging

	Struck int `json:"struck"` // how many calls it struck so far
}

// Duration is a time.Duration that JSON has as text ("1.5s") or as a number of seconds.
type Duration time.Duration

// MarshalJSON writes "1.5s".
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads "1.5s" or 1.5.
func (d *Duration) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		*d = Duration(seconds * float64(time.Second))
		return nil
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("duration %s: must be like \"1.5s\" or a number of seconds", b)
	}
	*d = Duration(v)
	return nil
}

// fault is a Fault with what it has seen.
type fault struct {
	Fault
	seen int
}

// AddFault adds a fault and returns its id.
func (s *Sim) AddFault(f Fault) (string, error) {
	if err := f.check(); err != nil {
		return "", fmt.Errorf("add fault: %w", err)
	}
	s.lock()
	defer s.mu.Unlock()
	s.faultSeq++
	f.ID, f.Struck = "f-"+strconv.Itoa(s.faultSeq), 0
	s.faults = append(s.faults, &fault{Fault: f})
	return f.ID, nil
}

func (f *Fault) check() error {
	kinds := []FaultKind{FaultError, FaultLatency, FaultReset, FaultHang, FaultLost, FaultLate, FaultTruncate, FaultEmpty}
	if !slices.Contains(kinds, f.Kind) {
		return fmt.Errorf("kind %q: must be one of %v", f.Kind, kinds)
	}
	for _, pattern := range []string{f.Action, f.Path} {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("pattern %q: %w", pattern, err)
		}
	}
	imds := f.Action == actionIMDS
	switch {
	case f.Share < 0 || f.Share > 1:
		return fmt.Errorf("share %g: must be from 0 to 1", f.Share)
	case f.Skip < 0 || f.Times < 0 || f.Delay < 0:
		return fmt.Errorf("skip, times and delay: must not be negative")
	case f.Delay == 0 && (f.Kind == FaultLatency || f.Kind == FaultLate):
		return fmt.Errorf("kind %s: needs a delay", f.Kind)
	case f.Path != "" && !imds:
		return fmt.Errorf("path %q: only for action %s", f.Path, actionIMDS)
	case imds && (f.Kind == FaultLost || f.Kind == FaultLate):
		return fmt.Errorf("kind %s: not for action %s, which has no effects", f.Kind, actionIMDS)
	case f.Status != 0 && (f.Status < 400 || f.Status > 599):
		return fmt.Errorf("status %d: must be from 400 to 599", f.Status)
	}
	return nil
}

// RemoveFault ends a fault and reports whether it was there.
func (s *Sim) RemoveFault(id string) bool {
	s.lock()
	defer s.mu.Unlock()
	before := len(s.faults)
	s.faults = slices.DeleteFunc(s.faults, func(f *fault) bool { return f.ID == id })
	return len(s.faults) < before
}

// ClearFaults ends all faults.
func (s *Sim) ClearFaults() {
	s.lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Faults returns the faults that were added and not removed, those that are over included.
func (s *Sim) Faults() []Fault {
	s.lock()
	defer s.mu.Unlock()
	out := make([]Fault, len(s.faults))
	for i, f := range s.faults {
		out[i] = f.Fault
	}
	return out
}

// verdict is what faults make of one call.
type verdict struct {
	id      string
	kind    FaultKind // "": nothing but latency
	latency time.Duration
	delay   time.Duration
	err     *wire.Error
	silence ending
}

// before reports whether the fault strikes before the call is looked at.
func (v verdict) before() bool {
	return v.kind == FaultReset || v.kind == FaultHang || v.kind == FaultEmpty
}

// matchFaults finds what strikes a call. A call that is struck counts for Times and Struck.
func (s *Sim) matchFaults(action, imdsPath string, sub subject) verdict {
	var v verdict
	for _, f := range s.faults {
		if v.kind != "" && f.Kind != FaultLatency || !s.matches(f, action, imdsPath, sub) {
			continue
		}
		f.seen++
		if f.seen <= f.Skip || f.Times > 0 && f.Struck >= f.Times || f.Share > 0 && s.rng.Float64() >= f.Share {
			continue
		}
		f.Struck++
		if f.Kind == FaultLatency {
			v.latency += time.Duration(f.Delay)
			if v.id == "" {
				v.id = f.ID
			}
			continue
		}
		v.id, v.kind, v.delay, v.silence = f.ID, f.Kind, time.Duration(f.Delay), endHang
		if f.Reset {
			v.silence = endReset
		}
		v.err = f.apiError()
	}
	return v
}

func (s *Sim) matches(f *fault, action, imdsPath string, sub subject) bool {
	if f.Action == "" && action == actionIMDS {
		return false
	}
	if f.Action != "" {
		if ok, _ := path.Match(f.Action, action); !ok {
			return false
		}
	}
	if f.Path != "" {
		if ok, _ := path.Match(f.Path, imdsPath); !ok {
			return false
		}
	}
	if f.Instance != "" && !slices.ContainsFunc(sub.targets, func(d description) bool { return d.id == f.Instance }) {
		return false
	}
	return f.TargetGroup == "" || slices.ContainsFunc(sub.groups, func(ref string) bool { return s.sameGroup(ref, f.TargetGroup) })
}

func (s *Sim) sameGroup(a, b string) bool {
	if a == b {
		return true
	}
	ga, errA := s.find(a)
	gb, errB := s.find(b)
	return errA == nil && errB == nil && ga == gb
}

func (f *fault) apiError() *wire.Error {
	e := &wire.Error{Code: f.Code, Message: f.Message, Status: f.Status}
	if e.Code == "" {
		e.Code = "InternalFailure"
	}
	if e.Status == 0 {
		e.Status = http.StatusBadRequest
		switch e.Code {
		case "InternalFailure", "HealthUnavailable":
			e.Status = http.StatusInternalServerError
		case "ServiceUnavailable":
			e.Status = http.StatusServiceUnavailable
		case "AccessDenied", "AccessDeniedException", "ExpiredToken", "SignatureDoesNotMatch", "InvalidClientTokenId":
			e.Status = http.StatusForbidden
		}
	}
	if e.Message == "" {
		e.Message = map[string]string{
			"Throttling": "Rate exceeded", "ThrottlingException": "Rate exceeded", "RequestLimitExceeded": "Request limit exceeded.",
			"ExpiredToken": "The security token included in the request is expired",
		}[e.Code]
	}
	if e.Message == "" {
		e.Message = "The request processing has failed because of an unknown error, exception or failure."
	}
	return e
}
