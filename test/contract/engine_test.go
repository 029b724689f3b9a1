package contract

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// engine is as much of Docker's HTTP API, on a unix socket, as berth uses. Its containers have one network and publish
// TCP ports; nothing in it is left to chance.
type engine struct {
	mu         sync.Mutex // guards all below
	containers []*container
	events     []object
	changed    chan struct{} // closed at the next event
	refuse     string        // what a stop is answered with; empty: it stops
}

type object map[string]any

type container struct {
	id, name string
	labels   map[string]string
	ports    map[int]int // by the container's, on the host
	running  bool
	started  time.Time
	finished time.Time
}

// fixed is when containers were started that the golden files name.
var fixed = time.Date(2001, 2, 3, 4, 5, 6, 789012345, time.UTC)

func newEngine(t testing.TB, socket string) *engine {
	t.Helper()
	e := &engine{changed: make(chan struct{})}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_ping", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /{version}/events", e.serveEvents)
	mux.HandleFunc("GET /{version}/containers/json", e.serveList)
	mux.HandleFunc("GET /{version}/containers/{ref}/json", e.serveInspect)
	mux.HandleFunc("POST /containers/{ref}/stop", e.serveStop)
	mux.HandleFunc("POST /{version}/containers/{ref}/stop", e.serveStop)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "Docker/20.10.24 (linux)")
		w.Header().Set("Api-Version", "1.41")
		mux.ServeHTTP(w, r)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return e
}

// run starts a container that publishes 8080/tcp on a host port, with the label berth.targets if targets is not empty.
func (e *engine) run(name, targets string, hostPort int) *container {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := &container{
		id: fmt.Sprintf("%064x", 0xc0ffee000000+hostPort), name: name, labels: map[string]string{},
		ports: map[int]int{8080: hostPort}, running: true, started: fixed,
	}
	if targets != "" {
		c.labels["berth.targets"] = targets
	}
	e.containers = append(e.containers, c)
	e.emit("network", "connect", c)
	e.emit("container", "start", c)
	return c
}

// emit appends an event. The mutex is held.
func (e *engine) emit(kind, action string, c *container, attributes ...string) {
	actor, attr := c.id, object{"name": c.name, "image": "my/web:1"}
	if kind == "network" {
		actor, attr = strings.Repeat("0", 64), object{"name": "bridge", "type": "bridge", "container": c.id}
	}
	for i := 0; i+1 < len(attributes); i += 2 {
		attr[attributes[i]] = attributes[i+1]
	}
	at := time.Now()
	e.events = append(e.events, object{
		"Type": kind, "Action": action, "Actor": object{"ID": actor, "Attributes": attr}, "scope": "local",
		"time": at.Unix(), "timeNano": at.UnixNano(),
	})
	close(e.changed)
	e.changed = make(chan struct{})
}

// find returns the container of a name, an id, or the beginning of one. The mutex is held.
func (e *engine) find(ref string) *container {
	for _, c := range e.containers {
		if c.name == ref || strings.HasPrefix(c.id, ref) {
			return c
		}
	}
	return nil
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func noSuch(w http.ResponseWriter, ref string) {
	answer(w, http.StatusNotFound, object{"message": "No such container: " + ref})
}

func (e *engine) serveList(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := []object{}
	for _, c := range e.containers {
		ports := []object{}
		for private, public := range c.ports {
			if c.running {
				ports = append(ports, object{"IP": "0.0.0.0", "PrivatePort": private, "PublicPort": public, "Type": "tcp"})
			}
		}
		list = append(list, object{"Id": c.id, "Names": []string{"/" + c.name}, "State": c.state(), "Ports": ports})
	}
	answer(w, http.StatusOK, list)
}

func (c *container) state() string {
	if c.running {
		return "running"
	}
	return "exited"
}

func (e *engine) serveInspect(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.find(r.PathValue("ref"))
	if c == nil {
		noSuch(w, r.PathValue("ref"))
		return
	}
	exposed, ports, networks := object{}, object{}, object{}
	for private, public := range c.ports {
		port := strconv.Itoa(private) + "/tcp"
		exposed[port] = object{}
		if c.running {
			ports[port] = []object{{"HostIp": "0.0.0.0", "HostPort": strconv.Itoa(public)}}
		}
	}
	if c.running {
		networks["bridge"] = object{"NetworkID": strings.Repeat("0", 64)}
	}
	answer(w, http.StatusOK, object{
		"Id": c.id, "Name": "/" + c.name, "Config": object{"Image": "my/web:1", "Labels": c.labels, "ExposedPorts": exposed},
		"State":           object{"Status": c.state(), "Running": c.running, "StartedAt": c.started, "FinishedAt": c.finished},
		"HostConfig":      object{"NetworkMode": "default", "PortBindings": object{}},
		"NetworkSettings": object{"Ports": ports, "Networks": networks},
	})
}

func (e *engine) serveStop(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.find(r.PathValue("ref"))
	switch {
	case c == nil:
		noSuch(w, r.PathValue("ref"))
		return
	case e.refuse != "":
		answer(w, http.StatusInternalServerError, object{"message": e.refuse})
		return
	case c.running:
		e.emit("container", "kill", c, "signal", "15")
		c.running, c.finished = false, time.Now()
		e.emit("network", "disconnect", c)
		e.emit("container", "die", c, "exitCode", "0")
		e.emit("container", "stop", c)
	}
	w.WriteHeader(http.StatusNoContent)
}

// serveEvents streams events from since on, until the client goes away, or to until.
func (e *engine) serveEvents(w http.ResponseWriter, r *http.Request) {
	since, until := nanos(r.URL.Query().Get("since")), nanos(r.URL.Query().Get("until"))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	next := 0
	for {
		e.mu.Lock()
		events, changed := slices.Clone(e.events[next:]), e.changed
		next = len(e.events)
		e.mu.Unlock()
		for _, ev := range events {
			if at := ev["timeNano"].(int64); at >= since && (until == 0 || at <= until) {
				_ = json.NewEncoder(w).Encode(ev)
			}
		}
		_ = control.Flush() // a client that is gone is seen next
		if until != 0 {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// nanos reads a time as Docker takes it: seconds and, after a point, nanoseconds.
func nanos(s string) int64 {
	whole, fraction, _ := strings.Cut(s, ".")
	seconds, _ := strconv.ParseInt(whole, 10, 64)
	n, _ := strconv.ParseInt(fraction, 10, 64)
	return seconds*int64(time.Second) + n
}

// refuseStops has stops answered with an error; "" ends it.
func (e *engine) refuseStops(message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refuse = message
}
