package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/status"
)

// MonitoringHandler serves what other hosts may ask: /metrics, /healthz and /readyz.
func (s *Server) MonitoringHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{
		ErrorLog:            promLog{s.log},
		MaxRequestsInFlight: 8,
		Timeout:             s.limits.write * 9 / 10,
	}))
	mux.HandleFunc("GET /healthz", s.serveHealthz)
	mux.HandleFunc("GET /readyz", s.serveReadyz)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "berth "+s.cfg.Build.Version+"\n\n/metrics\n/healthz\n/readyz\n")
	})
	return safe(mux)
}

// StatusHandler serves over TCP what is for this host alone: /v1/status, the status page, /healthz and /readyz. Every
// process of the host may ask, and a page in a browser of its may have it ask, so whoever asks has no group looked at
// oftener, and takes no place of the control socket's.
func (s *Server) StatusHandler() http.Handler { return ownSite(s.statusHandler(s.tcp)) }

func (s *Server) statusHandler(a access) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) { s.serveStatus(w, r, a) })
	mux.HandleFunc("GET /healthz", s.serveHealthz)
	mux.HandleFunc("GET /readyz", s.serveReadyz)
	mux.HandleFunc("GET /{$}", s.servePage)
	return safe(mux)
}

// controlHandler serves the control socket: the status, for which groups are followed, and what changes something.
func (s *Server) controlHandler() http.Handler {
	status := s.statusHandler(s.socket)
	if s.cfg.Control == nil {
		return status
	}
	mux := http.NewServeMux()
	mux.Handle("/", status)
	mux.Handle("GET /v1/status", status)
	mux.Handle("/v1/", safe(s.cfg.Control))
	return mux
}

// safe sets the headers that keep a browser from making more of an answer than it is.
func safe(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Cache-Control", "no-store")
		header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		h.ServeHTTP(w, r)
	})
}

func (s *Server) serveHealthz(w http.ResponseWriter, _ *http.Request) {
	if err := s.Alive(); err != nil {
		writeText(w, http.StatusServiceUnavailable, err.Error()+"\n")
		return
	}
	writeText(w, http.StatusOK, "ok\n")
}

func (s *Server) serveReadyz(w http.ResponseWriter, r *http.Request) {
	ready := s.Readiness()
	code := http.StatusOK
	if !ready.Ready {
		code = http.StatusServiceUnavailable
	}
	if wantsJSON(r) {
		s.writeJSON(w, code, ready)
		return
	}
	writeText(w, code, ready.Text())
}

// serveStatus answers with status.V1. Query parameters:
//
//	follow=web,api  look often at these groups (by key; * for all) while the client asks and for 10 s after: over the
//	                control socket; without effect elsewhere
//	after=REVISION  answer at once if the revision is another by now, else when it is, else after timeout
//	timeout=30s     with after; at most MaxWait
func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request, a access) {
	query := r.URL.Query()
	timeout := status.MaxWait
	if text := query.Get("timeout"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			writeError(w, http.StatusBadRequest, fmt.Sprintf("timeout %q: must be a duration such as 30s", text))
			return
		}
		timeout = min(d, status.MaxWait)
	}
	if keys := query["follow"]; len(keys) > 0 && a.follower != nil {
		release := a.follower.hold(s.knownKeys(keys))
		defer release()
	}
	if after := query.Get("after"); after != "" {
		select {
		case a.polls <- struct{}{}:
			defer func() { <-a.polls }()
		default:
			w.Header().Set("Retry-After", "1")
			writeError(w, http.StatusServiceUnavailable, "too many clients wait for a change; try again")
			return
		}
		Extend(w, timeout+s.limits.write) // the answer's own time begins after the wait
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		s.awaitChange(ctx, after)
	}
	s.writeJSON(w, http.StatusOK, s.Status())
}

// awaitChange returns when the revision is no longer the given one, when ctx ends, or when the server stops.
func (s *Server) awaitChange(ctx context.Context, after string) {
	for {
		d, nextD := s.cfg.Discovery()
		r, nextR := s.cfg.Registrar()
		if status.Revision(d, r) != after {
			return
		}
		select {
		case <-nextD:
		case <-nextR:
		case <-ctx.Done():
			return
		case <-s.done:
			return
		}
	}
}

// knownKeys returns the keys among those asked for that groups have: what clients invent is not kept.
func (s *Server) knownKeys(asked []string) []string {
	var names []string
	for _, list := range asked {
		names = append(names, strings.Split(list, ",")...)
	}
	_, d, r := s.state()
	all := groupKeys(d, r)
	if slices.Contains(names, "*") {
		return all
	}
	return slices.DeleteFunc(all, func(key string) bool { return !slices.Contains(names, key) })
}

func groupKeys(d *discovery.Snapshot, r *registrar.Snapshot) []string {
	keys := map[string]struct{}{}
	if d != nil {
		for key := range d.Wants {
			keys[key] = struct{}{}
		}
	}
	if r != nil {
		for i := range r.Groups {
			for _, key := range r.Groups[i].Keys {
				keys[key] = struct{}{}
			}
		}
	}
	return status.SortedKeys(keys)
}

// wantsJSON reports whether the client asks for JSON: by ?format=json, or by an Accept that names it.
func wantsJSON(r *http.Request) bool {
	switch r.URL.Query().Get("format") {
	case "json":
		return true
	case "text":
		return false
	default:
		return strings.Contains(r.Header.Get("Accept"), "application/json")
	}
}

func writeText(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(body)) // a client that is gone needs no answer
}

func writeError(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(status.ErrorV1{Err: message}) // a client that is gone needs no answer
}

// writeJSON encodes before it writes, so that a value that cannot be encoded is a 500 and not half an answer.
func (s *Server) writeJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.log.Error("encode answer", zap.Error(err))
		writeError(w, http.StatusInternalServerError, "the answer cannot be encoded")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // a client that is gone needs no answer
}

// promLog is where promhttp reports metrics that cannot be gathered.
type promLog struct{ log *zap.Logger }

func (l promLog) Println(v ...any) {
	l.log.Error("gather metrics", zap.String("error", fmt.Sprint(v...)))
}
