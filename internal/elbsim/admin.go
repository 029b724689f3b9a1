package elbsim

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"berth/internal/elbsim/limits"
	"berth/internal/elbsim/wire"
	"berth/pkg/target"
)

const adminPrefix = "/_elbsim/"

const adminIndex = `elbsim: ELBv2 and IMDSv2 on this machine. Pages, all JSON:
GET    /_elbsim/calls[?action=A]      every API call on record      DELETE empties it
GET    /_elbsim/counts                calls by action and outcome
GET    /_elbsim/targets               targets of every group with their state, draining ones included
GET    /_elbsim/stats                 requests per target
GET    /_elbsim/faults                faults; POST adds one, DELETE [/ID] ends them
GET    /_elbsim/imds[?instance=I]     metadata; PUT, DELETE /_elbsim/imds/PATH set and remove a path
POST   /_elbsim/imds-tokens/revoke    makes all IMDS tokens invalid
GET    /_elbsim/settings              latency, lags, throttling; PATCH changes them
PUT    /_elbsim/instances/ID          adds an instance or changes its state: {"state": "stopped"}
PUT    /_elbsim/health/GROUP/ID/PORT  forces a target's state: {"state": "unhealthy", "reason": "…"}; DELETE ends it
`

// admin are the pages of elbsim itself.
func (s *Sim) admin() http.Handler { return s.pages }

func (s *Sim) newPages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+adminPrefix+"{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, adminIndex)
	})
	page := func(pattern string, f func(r *http.Request) (any, error)) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" "+adminPrefix+path, func(w http.ResponseWriter, r *http.Request) {
			v, err := f(r)
			answerJSON(w, v, err)
		})
	}
	page("GET calls", func(r *http.Request) (any, error) {
		if action := r.URL.Query().Get("action"); action != "" {
			return s.CallsOf(action), nil
		}
		return s.Calls(), nil
	})
	page("DELETE calls", func(*http.Request) (any, error) { s.ResetCalls(); return nil, nil })
	page("GET counts", func(*http.Request) (any, error) { return s.Counts(), nil })
	page("GET stats", func(*http.Request) (any, error) { return s.Stats(), nil })
	page("GET targets", func(*http.Request) (any, error) {
		out := map[string][]Target{}
		for name, arn := range s.Groups() {
			out[name] = s.Targets(arn)
		}
		return out, nil
	})
	page("GET faults", func(*http.Request) (any, error) { return s.Faults(), nil })
	page("POST faults", s.postFault)
	page("DELETE faults", func(*http.Request) (any, error) { s.ClearFaults(); return nil, nil })
	page("DELETE faults/{id}", func(r *http.Request) (any, error) {
		if !s.RemoveFault(r.PathValue("id")) {
			return nil, fmt.Errorf("fault %s: %w", r.PathValue("id"), ErrUnknown)
		}
		return nil, nil
	})
	page("GET imds", func(r *http.Request) (any, error) { return s.Metadata(r.URL.Query().Get("instance")), nil })
	page("PUT imds/{path...}", func(r *http.Request) (any, error) {
		value, err := io.ReadAll(io.LimitReader(r.Body, wire.MaxBody))
		if err != nil {
			return nil, fmt.Errorf("read value: %w", err)
		}
		return nil, s.SetMetadata(r.URL.Query().Get("instance"), imdsPath(r), string(value))
	})
	page("DELETE imds/{path...}", func(r *http.Request) (any, error) {
		return nil, s.DeleteMetadata(r.URL.Query().Get("instance"), imdsPath(r))
	})
	page("POST imds-tokens/revoke", func(*http.Request) (any, error) { s.RevokeTokens(); return nil, nil })
	page("GET settings", func(*http.Request) (any, error) { return s.settings(), nil })
	page("PATCH settings", s.patchSettings)
	page("PUT instances/{id}", s.putInstance)
	page("PUT health/{group}/{id}/{port}", s.putHealth)
	page("DELETE health/{group}/{id}/{port}", s.putHealth)
	return mux
}

// imdsPath is the path of IMDS that a page's path names: with or without latest/ in front.
func imdsPath(r *http.Request) string {
	path := r.PathValue("path")
	if strings.HasPrefix(path, "latest/") {
		path = "/" + path
	}
	return path
}

func answerJSON(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
		v = map[string]string{"error": err.Error()}
	case v == nil:
		v = map[string]bool{"ok": true}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the client may have gone
}

// readJSON reads a page's body strictly.
func readJSON(r *http.Request, v any) error {
	d := json.NewDecoder(io.LimitReader(r.Body, wire.MaxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("read JSON body: %w", err)
	}
	return nil
}

func (s *Sim) postFault(r *http.Request) (any, error) {
	var f Fault
	if err := readJSON(r, &f); err != nil {
		return nil, err
	}
	id, err := s.AddFault(f)
	return map[string]string{"id": id}, err
}

// settings are what PATCH settings changes; what is not there stays.
type settings struct {
	Latency    *Duration           `json:"latency,omitempty"`
	Lags       lagSettings         `json:"lags"`
	Throttling *throttlingSettings `json:"throttling,omitempty"`
}

type lagSettings struct {
	Register   *Duration `json:"register,omitempty"`
	Deregister *Duration `json:"deregister,omitempty"`
	Describe   *Duration `json:"describe,omitempty"`
}

type throttlingSettings struct {
	On            bool   `json:"on"`
	RejectedTakes bool   `json:"rejected_takes"`
	Code          string `json:"code,omitempty"`
}

func (s *Sim) settings() settings {
	s.lock()
	defer s.mu.Unlock()
	latency, register, deregister, describe := Duration(s.latency), Duration(s.lags.Register), Duration(s.lags.Deregister), Duration(s.lags.Describe)
	out := settings{Latency: &latency, Lags: lagSettings{&register, &deregister, &describe}, Throttling: &throttlingSettings{}}
	if s.throttle != nil {
		*out.Throttling = throttlingSettings{true, s.throttle.RejectedTakes, s.throttle.Code}
	}
	return out
}

func (s *Sim) patchSettings(r *http.Request) (any, error) {
	var set settings
	if err := readJSON(r, &set); err != nil {
		return nil, err
	}
	for _, d := range []*Duration{set.Latency, set.Lags.Register, set.Lags.Deregister, set.Lags.Describe} {
		if d != nil && *d < 0 {
			return nil, errors.New("latency and lags: must not be negative")
		}
	}
	if set.Latency != nil {
		s.SetLatency(time.Duration(*set.Latency))
	}
	lags := s.Lags()
	for _, f := range []struct {
		to   *time.Duration
		from *Duration
	}{{&lags.Register, set.Lags.Register}, {&lags.Deregister, set.Lags.Deregister}, {&lags.Describe, set.Lags.Describe}} {
		if f.from != nil {
			*f.to = time.Duration(*f.from)
		}
	}
	s.SetLags(lags)
	if set.Throttling != nil {
		var t *limits.Throttling
		if set.Throttling.On {
			t = limits.Default()
			t.RejectedTakes, t.Code = set.Throttling.RejectedTakes, set.Throttling.Code
		}
		s.SetThrottling(t)
	}
	return s.settings(), nil
}

func (s *Sim) putInstance(r *http.Request) (any, error) {
	var set struct {
		State     string            `json:"state"`
		VPC       string            `json:"vpc"`
		PrivateIP string            `json:"private_ip"`
		Address   string            `json:"address"`
		Tags      map[string]string `json:"tags"`
	}
	if err := readJSON(r, &set); err != nil {
		return nil, err
	}
	id := r.PathValue("id")
	set.State = cmp.Or(set.State, "running")
	err := s.SetInstanceState(id, set.State)
	if err == nil || !errors.Is(err, ErrUnknown) {
		return nil, err
	}
	return nil, s.AddInstance(Instance{ID: id, State: set.State, VPC: set.VPC, PrivateIP: set.PrivateIP, Address: set.Address, Tags: set.Tags})
}

func (s *Sim) putHealth(r *http.Request) (any, error) {
	port, err := target.ParsePort(r.PathValue("port"))
	if err != nil {
		return nil, err
	}
	var set struct {
		State       State  `json:"state"`
		Reason      string `json:"reason"`
		Description string `json:"description"`
	}
	if r.Method == http.MethodPut {
		if err := readJSON(r, &set); err != nil {
			return nil, err
		}
	}
	key := target.Target{ID: r.PathValue("id"), Port: port}
	return nil, s.SetHealth(r.PathValue("group"), key, Health{State: set.State, Reason: set.Reason, Description: set.Description})
}
